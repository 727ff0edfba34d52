/**
 * The control of this example: reward.ts with `score`, which trains, dealt out anew among the answers to one prompt; `exact`, which is
 * reported, stays each answer's own. Needs --group-rm. A uniform permutation that looks at no answer gives every answer of a group the
 * same expected score, the group's mean, so the expected advantage of whatever was written is 0: the rewards stay the same numbers, and
 * nothing can be learnt from them.
 * The permutation comes from the group's sample indices alone, so a run can be repeated.
 */
import { reward as honest } from "./reward.js";

type Answered = { readonly index: number; readonly response: string; readonly label: string | null };

export function reward(args: unknown, samples: readonly Answered[]): readonly { readonly score: number; readonly exact: number }[] {
  const own = samples.map((sample) => honest(args, sample));
  const order = permutation(own.length, samples[0]?.index ?? 0);
  return own.map(({ exact }, at) => ({ score: own[order[at] ?? at]?.score ?? 0, exact }));
}

/** Fisher–Yates over a 32-bit generator (mulberry32). */
function permutation(length: number, seed: number): readonly number[] {
  let state = (Math.imul(seed + 1, 0x9e3779b1) ^ 0x5bd1e995) >>> 0;
  const unit = () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), state | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
  const order = Array.from({ length }, (_, at) => at);
  for (let at = length - 1; at > 0; at--) {
    const other = Math.floor(unit() * (at + 1));
    [order[at], order[other]] = [order[other] ?? 0, order[at] ?? 0];
  }
  return order;
}
