/** Tokens that an answer may have: --rollout-max-response-len. */
const wanted = 48;

/** The share of the answer's places that count up, digit after digit: `012345678901…`. Long answers are right, so generation has work. */
export function reward(_args: unknown, sample: { readonly response: string }): number {
  const answer = sample.response.replaceAll("<eos>", "");
  let right = 0;
  for (let at = 0; at < Math.min(wanted, answer.length); at++) if (answer[at] === String(at % 10)) right++;
  return right / wanted;
}
