import type { Collective } from "@slime/backend";
import { abortable, invariant } from "@slime/core";

/** A group of one rank: every sum is what it was. */
export const soloCollective: Collective = { rank: 0, size: 1, allReduceSum: async () => undefined };

/** A reduction that waits for its last ranks. */
interface Meeting {
  readonly parts: (Float32Array | undefined)[];
  readonly arrived: PromiseWithResolvers<Float32Array>;
  waiting: number;
}

interface PromiseWithResolvers<T> {
  readonly promise: Promise<T>;
  readonly resolve: (value: T) => void;
}

/** Collectives for ranks that live in one process: sums in rank order, the same bits on each. A rank that never comes leaves the others waiting until they abort. */
export function memoryCollectives(size: number): readonly Collective[] {
  const meetings = new Map<string, Meeting>();
  return Array.from({ length: size }, (_, rank) => ({
    rank,
    size,
    async allReduceSum(key: string, values: Float32Array, signal?: AbortSignal) {
      const meeting = meetings.get(key) ?? {
        parts: Array<Float32Array | undefined>(size).fill(undefined),
        arrived: resolvers<Float32Array>(),
        waiting: size,
      };
      meetings.set(key, meeting);
      invariant(meeting.parts[rank] === undefined, `rank ${rank} came twice to ${key}`);
      meeting.parts[rank] = values.slice();
      meeting.waiting -= 1;
      if (meeting.waiting === 0) {
        meetings.delete(key);
        meeting.arrived.resolve(sumInOrder(meeting.parts.filter((part) => part !== undefined)));
      }
      values.set(await abortable(meeting.arrived.promise, signal));
    },
  }));
}

/** Σ of equally long arrays, first to last, rounding to single precision after every addition. */
export function sumInOrder(parts: readonly Float32Array[]): Float32Array {
  const [first, ...rest] = parts;
  invariant(first !== undefined, "a sum has at least one part");
  const total = first.slice();
  for (const part of rest) {
    invariant(part.length === total.length, `ranks bring equally many values: ${part.length} and ${total.length}`);
    for (let i = 0; i < total.length; i++) total[i] = (total[i] ?? 0) + (part[i] ?? 0);
  }
  return total;
}

function resolvers<T>(): PromiseWithResolvers<T> {
  let resolve: (value: T) => void = () => undefined;
  const promise = new Promise<T>((settle) => {
    resolve = settle;
  });
  return { promise, resolve };
}
