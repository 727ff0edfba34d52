import { type Clock, type Random, SlimeError } from "@slime/core";
import { type MemoryDisk, memoryStore, type StateStore } from "@slime/head";

export interface SimDiskOptions {
  readonly clock: Clock;
  readonly random: Random;
  /** After each commit, with all that is durable now. */
  readonly onDurable: (tables: MemoryDisk["tables"]) => void;
}

/** The head's disk: it outlives heads, takes its time, and can be full. */
export interface SimDisk {
  /** Least and largest duration of a commit, ms. */
  commitMs: readonly [number, number];
  full: boolean;
  /** It acknowledges before it writes, as disks with a volatile cache do: to see that a law notices. */
  lies: boolean;
  /** A store for one life of the head. `alive` false: nothing more is written, and nothing is acknowledged any more. */
  readonly storeOf: (alive: () => boolean) => StateStore;
}

const never = () => new Promise<never>(() => {});

/**
 * Half of a commit's time passes before it is durable, half after: a head that is killed in the first half loses it, one that is
 * killed in the second finds it again though nobody was told.
 */
export function simDisk(disk: MemoryDisk, { clock, random, onDurable }: SimDiskOptions): SimDisk {
  const wait = (ms: number) => new Promise<void>((resolve) => void clock.after(ms, resolve));
  const self: SimDisk = {
    commitMs: [0, 0],
    full: false,
    lies: false,
    storeOf(alive) {
      const inner = memoryStore(disk);
      return {
        ...inner,
        async commit(changes, headMs) {
          const [least, most] = self.commitMs;
          const halfMs = (least + (most - least) * random.unit()) / 2;
          await wait(halfMs);
          if (!alive()) return never();
          if (self.full) throw new SlimeError("disk.full", "the simulated disk is full", { path: "head", needed: null });
          if (self.lies) {
            void wait(500).then(() => (alive() ? inner.commit(changes, headMs) : undefined));
            return;
          }
          await inner.commit(changes, headMs);
          onDurable(disk.tables);
          await wait(halfMs);
          if (!alive()) return never();
        },
      };
    },
  };
  return self;
}
