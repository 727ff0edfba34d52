import { chmodSync, closeSync, existsSync, mkdtempSync, openSync, readdirSync, readSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { JobId, SlimeError, seededRandom } from "@slime/core";
import type { ObjectDescriptor } from "@slime/rpc";
import fc from "fast-check";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { ObjectStore } from "./object-store.js";
import { sizeClass } from "./size-class.js";

const random = seededRandom(1);
const jobId = JobId.create(random);
let dir: string;
let store: ObjectStore;

beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), "slime-store-"));
  store = new ObjectStore({ dir, capacityBytes: 64 * 1024 * 1024, recycleBytesMax: 64 * 1024 * 1024, random });
});
afterEach(() => rmSync(dir, { recursive: true, force: true }));

/** Bytes that differ by seed everywhere: the seed, then its double, over and over. */
function filled(bytes: number, seed: number): Uint8Array {
  const out = new Uint8Array(bytes).fill(seed & 0xff);
  for (let i = 1; i < bytes; i += 97) out[i] = (seed * 2 + i) & 0xff;
  return out;
}
const codeOf = (run: () => unknown): string => {
  try {
    run();
    return "no error";
  } catch (error) {
    return SlimeError.isAny(error) ? error.code : String(error);
  }
};

const outcomeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: unknown) => (SlimeError.isAny(error) ? error.code : String(error)),
  );

describe("values", () => {
  test("a value with arrays comes back equal, its arrays aligned", async () => {
    const value = {
      step: 3,
      tokens: Int32Array.from({ length: 50_000 }, (_, i) => i),
      logProbs: new Float64Array([0.5, -1]),
      text: "ü",
      raw: filled(5000, 1),
    };
    using stored = await store.getValue(await store.putValue(jobId, value));
    expect(stored.value).toEqual(value);
  });

  test("objects of every size around a class's edge", () => {
    for (const bytes of [0, 1, 65_535 - 64, 65_536 - 64, 65_537 - 64, 1_000_003]) {
      const object = store.putSync(jobId, [filled(bytes, bytes)]);
      using stored = store.getSync(object);
      expect(Buffer.compare(stored.bytes, filled(bytes, bytes))).toBe(0);
    }
  });

  test("many small parts are one object", () => {
    const parts = Array.from({ length: 3000 }, (_, i) => filled(i % 7, i));
    using stored = store.getSync(store.putSync(jobId, parts));
    expect(Buffer.compare(stored.bytes, Buffer.concat(parts))).toBe(0);
  });

  test("another process's store sees them, and the first one's capacity", () => {
    const object = store.putSync(jobId, [filled(100, 1)]);
    const other = new ObjectStore({ dir, capacityBytes: 1 });
    expect(Buffer.from(other.getSync(object).bytes).equals(filled(100, 1))).toBe(true);
    expect(other.usage()).toMatchObject({ objects: 1, capacityBytes: 64 * 1024 * 1024 });
  });
});

describe("S2: never wrong data", () => {
  test("a freed object is lost, also after its segment was used again", () => {
    const first = store.putSync(jobId, [filled(200_000, 1)]);
    store.free(first);
    expect(codeOf(() => store.getSync(first))).toBe("object.lost");
    const second = store.putSync(jobId, [filled(199_000, 2)]);
    expect(store.usage().recyclableBytes).toBe(0);
    expect(codeOf(() => store.getSync(first))).toBe("object.lost");
    expect(Buffer.from(store.getSync(second).bytes).equals(filled(199_000, 2))).toBe(true);
  });

  test("an object freed and overwritten while it is being read is lost", async () => {
    const object = store.putSync(jobId, [filled(20_000_000, 1)]);
    const reading = store.get(object); // has copied its first steps, and yields
    store.free(object);
    const second = store.putSync(jobId, [filled(20_000_000, 2)]);
    expect(await outcomeOf(reading)).toBe("object.lost");
    expect(store.getSync(second).bytes[77]).toBe(filled(78, 2)[77]);
  });

  test("interleaved puts, gets and frees of two processes", () => {
    const other = new ObjectStore({ dir, random });
    const step = fc.record({
      who: fc.boolean(),
      what: fc.constantFrom("put", "get", "free", "freeJob"),
      size: fc.integer({ min: 0, max: 300_000 }),
      which: fc.nat(20),
      job: fc.nat(2),
    });
    const jobs = [0, 1, 2].map(() => JobId.create(random));
    fc.assert(
      fc.property(fc.array(step, { maxLength: 40 }), (steps) => {
        const made: { object: ObjectDescriptor; seed: number; live: boolean }[] = [];
        for (const [seed, { who, what, size, which, job }] of steps.entries()) {
          const actor = who ? store : other;
          const chosen = made[which % Math.max(1, made.length)];
          if (what === "put") made.push({ object: actor.putSync(jobs[job] ?? jobId, [filled(size, seed)]), seed, live: true });
          else if (what === "freeJob") {
            actor.freeJob(jobs[job] ?? jobId);
            for (const each of made) if (each.object.jobId === jobs[job]) each.live = false;
          } else if (chosen !== undefined && what === "free") {
            actor.free(chosen.object);
            chosen.live = false;
          } else if (chosen !== undefined) {
            if (!chosen.live) expect(codeOf(() => actor.getSync(chosen.object))).toBe("object.lost");
            else {
              using read = actor.getSync(chosen.object);
              expect(Buffer.compare(read.bytes, filled(chosen.object.bytes, chosen.seed))).toBe(0);
            }
          }
        }
        for (const job of jobs) store.freeJob(job);
        expect(store.usage().objects).toBe(0);
      }),
      { numRuns: 60, seed: 7 },
    );
  });

  test("ids that came over a wire are no paths", () => {
    expect(codeOf(() => store.getSync({ objectId: "../../etc/passwd", jobId, bytes: 1 }))).toBe("object.lost");
    expect(codeOf(() => store.freeJob(".."))).toBe("object.lost");
  });
});

describe("S1, S4: nothing half-visible", () => {
  test("a put past the capacity fails with the numbers and leaves nothing", () => {
    const small = new ObjectStore({ dir: join(dir, "small"), capacityBytes: 400_000, random });
    const kept = small.putSync(jobId, [filled(200_000, 1)]);
    let failure: unknown;
    try {
      small.putSync(jobId, [filled(300_000, 2)]);
    } catch (error) {
      failure = error;
    }
    expect(failure).toMatchObject({
      code: "object_store.full",
      details: { needed: sizeClass(300_064), free: 400_000 - statSync(join(dir, "small", jobId, kept.objectId)).size, capacity: 400_000 },
    });
    expect(readdirSync(join(dir, "small", jobId))).toEqual([kept.objectId]);
  });

  test("segments that wait for reuse give way to another size", () => {
    const small = new ObjectStore({ dir: join(dir, "small"), capacityBytes: 600_000, recycleBytesMax: 600_000, random });
    small.free(small.putSync(jobId, [filled(300_000, 1)]));
    expect(small.usage().recyclableBytes).toBeGreaterThan(300_000);
    small.putSync(jobId, [filled(500_000, 2)]);
    expect(small.usage()).toMatchObject({ objects: 1, recyclableBytes: 0 });
  });

  test("no more than the limit waits for reuse", () => {
    const lean = new ObjectStore({ dir: join(dir, "lean"), capacityBytes: 10_000_000, recycleBytesMax: 250_000, random });
    const objects = Array.from({ length: 5 }, (_, i) => lean.putSync(jobId, [filled(100_000, i)]));
    for (const object of objects) lean.free(object);
    expect(lean.usage().recyclableBytes).toBeLessThanOrEqual(250_000);
  });

  test("a full file system is object_store.full, and nothing is left", () => {
    // A directory one may not write to stands for the system's refusal; ENOSPC takes the same way out.
    const object = store.putSync(jobId, [filled(10, 1)]);
    const full = Object.assign(new Error("no space left on device"), { code: "ENOSPC" });
    const parts = [filled(70_000, 1)];
    Object.defineProperty(parts[0], "subarray", {
      value: () => {
        throw full;
      },
    });
    expect(codeOf(() => store.putSync(jobId, parts))).toBe("object_store.full");
    expect(readdirSync(join(dir, jobId))).toEqual([object.objectId]);
  });

  test("a job that ends while its object is written makes the put fail, and stays ended", async () => {
    const putting = store.put(jobId, [filled(30_000_000, 1)]);
    store.freeJob(jobId);
    expect(await outcomeOf(putting)).toBe("object.lost");
    expect(existsSync(join(dir, jobId))).toBe(false);
  });

  test("the sweep removes what dead processes left, and only that", () => {
    const object = store.putSync(jobId, [filled(10, 1)]);
    for (const name of [".w-999-obj_0000000000000001", ".f-999-obj_0000000000000002", ".w-1000-obj_0000000000000003"])
      writeFileSync(join(dir, jobId, name), "half");
    store.sweep({ isAlive: (pid) => pid === 1000 });
    expect(readdirSync(join(dir, jobId)).sort()).toEqual([".w-1000-obj_0000000000000003", object.objectId]);
    store.sweep({ isAlive: () => true, liveJobs: new Set() });
    expect(existsSync(join(dir, jobId))).toBe(false);
  });
});

test("a sealed file is a header of 64 bytes and the frame", () => {
  const object = store.putSync(jobId, [new Uint8Array([1, 2, 3])]);
  const fd = openSync(join(dir, jobId, object.objectId), "r");
  const bytes = Buffer.alloc(100);
  const length = readSync(fd, bytes, 0, 100, 0);
  closeSync(fd);
  expect(bytes.toString("latin1", 0, 4)).toBe("SLOB");
  expect(bytes.readBigUInt64LE(8)).toBe(3n);
  expect(bytes.toString("latin1", 24, 44)).toBe(object.objectId);
  expect(bytes.subarray(64, length)).toEqual(Buffer.from([1, 2, 3]));
});

test("a directory open to others is refused", () => {
  chmodSync(dir, 0o755);
  expect(codeOf(() => new ObjectStore({ dir }))).toBe("config.invalid");
});

test("size classes waste at most a fifth, and are their own class", () => {
  fc.assert(
    fc.property(fc.integer({ min: 65_537, max: 2 ** 40 }), (bytes) => {
      const size = sizeClass(bytes);
      expect(size).toBeGreaterThanOrEqual(bytes);
      expect(size / bytes).toBeLessThanOrEqual(1.25);
      expect(sizeClass(size)).toBe(size);
    }),
  );
});
