import { closeSync, mkdirSync, openSync, readSync, renameSync, statSync, writeSync } from "node:fs";
import { join } from "node:path";
import { ObjectId, type Random, SlimeError, systemRandom } from "@slime/core";
import { errnoOf } from "@slime/platform";
import { type CodecHooks, decodeValueFrame, encodeValueFrame, type ObjectDescriptor } from "@slime/rpc";
import { BufferPool } from "./buffer-pool.js";
import { Capacity, type StoreUsage, settledCapacity } from "./capacity.js";
import { readInto, writeParts } from "./copying.js";
import { freeDir, jobDirsIn, names, remove, workerOf } from "./layout.js";
import { generationOf, headerBytes, holds, openHeader, sealedHeader } from "./segment-header.js";
import { sizeClass } from "./size-class.js";
import { runInTurns, runNow, type Steps } from "./steps.js";

export interface ObjectStoreOptions {
  /** The store's directory, shared by all processes of a cluster on a machine. Made (0700) when it is not there. */
  readonly dir: string;
  /** Bytes all objects may take together. The first process decides; default half of the file system. */
  readonly capacityBytes?: number;
  /** Bytes of freed segments kept for reuse; default a quarter of the capacity. */
  readonly recycleBytesMax?: number;
  /** Bytes of released read buffers this process keeps; default 1 GiB. */
  readonly buffersBytesMax?: number;
  readonly random?: Random;
}

/** An object's bytes in this process's memory. Disposing hands the memory on to later reads: views of it would change then. */
export interface StoredBytes extends Disposable {
  readonly bytes: Uint8Array;
}

/** A stored value; arrays in it are views. Disposing hands their memory on, so do it only when nothing looks at them any more, or never. */
export interface StoredValue extends Disposable {
  readonly value: unknown;
}

/**
 * Values in shared memory, one file each, without a manager: every step is an atomic rename or a header that is checked.
 * Invariants:
 * S1 an object is visible whole or not at all: written under a temporary name, sealed, renamed;
 * S2 a reader gets the object it named or `object.lost`, never other bytes: the header is checked before and after the copy,
 *    and a freed segment's header is wiped before anybody may write into it;
 * S3 a segment has one owner at a time: freeing and claiming begin with a rename, which only one process wins;
 * S4 a put that fails leaves nothing behind; one whose process died is swept.
 */
export class ObjectStore {
  readonly dir: string;
  readonly #capacity: Capacity;
  readonly #recycleBytesMax: number;
  readonly #buffers: BufferPool;
  readonly #random: Random;

  /** @throws when the directory cannot be made or belongs to another user. */
  constructor(options: ObjectStoreOptions) {
    this.dir = options.dir;
    ownDirectory(options.dir);
    this.#capacity = new Capacity(options.dir, settledCapacity(options.dir, options.capacityBytes));
    this.#recycleBytesMax = options.recycleBytesMax ?? Math.floor(this.#capacity.capacityBytes / 4);
    this.#buffers = new BufferPool(options.buffersBytesMax ?? 1024 ** 3);
    this.#random = options.random ?? systemRandom;
  }

  /** Stores the frame made of `parts`, letting the event loop run in between; the parts must not change meanwhile. @throws `object_store.full`, `object.lost` when the job ends meanwhile. */
  put(jobId: string, parts: readonly Uint8Array[]): Promise<ObjectDescriptor> {
    return runInTurns(this.#put(jobId, parts));
  }

  /** As `put`, at once: what a caller changes after it returns does not matter. */
  putSync(jobId: string, parts: readonly Uint8Array[]): ObjectDescriptor {
    return runNow(this.#put(jobId, parts));
  }

  /** The object's bytes, copied into warm memory when some was released. @throws `object.lost`. */
  get(object: ObjectDescriptor): Promise<StoredBytes> {
    return runInTurns(this.#get(object));
  }

  /** As `get`, at once. */
  getSync(object: ObjectDescriptor): StoredBytes {
    return runNow(this.#get(object));
  }

  /** Encodes and stores a value. @throws also `codec.refused`. */
  putValue(jobId: string, value: unknown, hooks?: CodecHooks): Promise<ObjectDescriptor> {
    return this.put(jobId, encodeValueFrame(value, hooks));
  }

  /** Reads and decodes a value. */
  async getValue(object: ObjectDescriptor, hooks?: CodecHooks): Promise<StoredValue> {
    const stored = await this.get(object);
    return { value: decodeValueFrame(stored.bytes, hooks), [Symbol.dispose]: () => stored[Symbol.dispose]() };
  }

  /** Ends an object; freeing one that is gone is no error. */
  free(object: Pick<ObjectDescriptor, "objectId" | "jobId">): void {
    const path = this.#pathOf(object);
    const taken = join(this.dir, checkedName(object.jobId), `.f-${process.pid}-${object.objectId}`);
    if (tryRename(path, taken)) this.#recycle(taken, object.objectId);
  }

  /** Ends all objects of a job, written, being written or being freed. */
  freeJob(jobId: string): void {
    const dead = join(this.dir, `.dead-${process.pid}-${checkedName(jobId)}`);
    if (!tryRename(join(this.dir, jobId), dead)) return;
    for (const name of names(dead)) {
      if (workerOf(name) === null) this.#recycle(join(dead, name), name);
    }
    remove(dead);
  }

  /**
   * Removes what dead processes left half done, and the objects of jobs that are over. For the daemon, when it starts and when processes died.
   * @param liveJobs when given, jobs not in it are freed.
   */
  sweep(options: { readonly isAlive: (pid: number) => boolean; readonly liveJobs?: ReadonlySet<string> }): void {
    const dead = (name: string) => {
      const pid = workerOf(name);
      return pid !== null && !options.isAlive(pid);
    };
    for (const name of names(this.dir)) if (dead(name)) remove(join(this.dir, name));
    for (const job of jobDirsIn(this.dir)) {
      if (options.liveJobs !== undefined && !options.liveJobs.has(job)) {
        this.freeJob(job);
        continue;
      }
      for (const name of names(join(this.dir, job))) if (dead(name)) remove(join(this.dir, job, name));
    }
  }

  /** Counts the files: for status, not for every call. */
  usage(): StoreUsage {
    return this.#capacity.usage();
  }

  /** Removes the store with everything in it; for whoever ends the cluster's last daemon of a machine. */
  destroy(): void {
    remove(this.dir);
  }

  *#put(jobId: string, parts: readonly Uint8Array[]): Steps<ObjectDescriptor> {
    const bytes = parts.reduce((sum, part) => sum + part.byteLength, 0);
    const object: ObjectDescriptor = { objectId: ObjectId.create(this.#random), jobId, bytes };
    const jobDir = join(this.dir, checkedName(jobId));
    mkdirSync(jobDir, { recursive: true, mode: 0o700 });
    const draft = join(jobDir, `.w-${process.pid}-${object.objectId}`);
    const size = sizeClass(bytes + headerBytes);
    try {
      const fd = this.#claim(size, draft);
      try {
        const header = Buffer.alloc(headerBytes);
        const generation = (readSync(fd, header, 0, headerBytes, 0) === headerBytes ? generationOf(header) : 0) + 1;
        writeSync(fd, openHeader(generation), 0, headerBytes, 0);
        yield* writeParts(fd, parts, headerBytes);
        writeSync(fd, sealedHeader({ objectId: object.objectId, bytes, generation }), 0, headerBytes, 0);
      } finally {
        closeSync(fd);
      }
      renameSync(draft, join(jobDir, object.objectId));
    } catch (error) {
      remove(draft);
      const code = errnoOf(error);
      if (code === "ENOSPC" || code === "EDQUOT") throw this.#capacity.systemFull(size, error);
      if (code === "ENOENT") throw lost(object.objectId, `job ${jobId} ended while it was being written`, error);
      throw error;
    }
    return object;
  }

  /** A segment of `size` bytes under the name `draft`, open for writing: a recycled one if there is one (S3). */
  #claim(size: number, draft: string): number {
    const dir = join(this.dir, freeDir, String(size));
    for (const name of names(dir)) {
      if (tryRename(join(dir, name), draft)) return openSync(draft, "r+");
    }
    this.#capacity.reserve(size);
    return openSync(draft, "wx+", 0o600);
  }

  /** Wipes a segment that was taken by rename, then offers it for reuse (S2), unless enough wait. */
  #recycle(taken: string, name: string): void {
    const size = statSync(taken, { throwIfNoEntry: false })?.size;
    if (size === undefined) return;
    const dir = join(this.dir, freeDir, String(sizeClass(size)));
    const waiting = names(join(this.dir, freeDir)).reduce(
      (sum, each) => sum + Number(each) * names(join(this.dir, freeDir, each)).length,
      0,
    );
    if (waiting + sizeClass(size) > this.#recycleBytesMax) return remove(taken);
    const fd = openIfThere(taken, "r+");
    if (fd === undefined) return; // its job ended meanwhile, and took it along
    try {
      const header = Buffer.alloc(headerBytes);
      readSync(fd, header, 0, headerBytes, 0);
      writeSync(fd, openHeader(generationOf(header)), 0, headerBytes, 0);
    } finally {
      closeSync(fd);
    }
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    tryRename(taken, join(dir, name));
  }

  *#get(object: ObjectDescriptor): Steps<StoredBytes> {
    const fd = this.#open(object);
    try {
      const header = Buffer.alloc(headerBytes);
      const check = () => {
        if (readSync(fd, header, 0, headerBytes, 0) !== headerBytes || !holds(header, object))
          throw lost(object.objectId, "it was freed while it was being read");
      };
      check();
      const memory = this.#buffers.take(object.bytes);
      const bytes = new Uint8Array(memory, 0, object.bytes);
      const whole = yield* readInto(fd, bytes, headerBytes);
      if (!whole) throw lost(object.objectId, "its segment is shorter than the object");
      check();
      let released = false;
      return {
        bytes,
        [Symbol.dispose]: () => {
          if (!released) this.#buffers.give(memory);
          released = true;
        },
      };
    } finally {
      closeSync(fd);
    }
  }

  #open(object: ObjectDescriptor): number {
    const fd = openIfThere(this.#pathOf(object), "r");
    if (fd === undefined) throw lost(object.objectId, `it was freed, or job ${object.jobId} ended`);
    return fd;
  }

  #pathOf(object: Pick<ObjectDescriptor, "objectId" | "jobId">): string {
    return join(this.dir, checkedName(object.jobId), checkedName(object.objectId));
  }
}

function lost(objectId: string, reason: string, cause?: unknown): SlimeError<"object.lost"> {
  return new SlimeError("object.lost", `${objectId} is gone: ${reason}`, { objectId, reason }, { cause });
}

/** Ids come over wires and become file names. */
function checkedName(id: string): string {
  if (!/^(?:job|obj)_[0-9a-f]{16}$/.test(id))
    throw new SlimeError("object.lost", `${JSON.stringify(id.slice(0, 80))} names no job or object`, { objectId: id, reason: "not an id" });
  return id;
}

/** Shared memory and temporary directories are open to all users: what another one made there is not ours. */
function ownDirectory(dir: string): void {
  mkdirSync(dir, { recursive: true, mode: 0o700 });
  const { uid, mode } = statSync(dir);
  if (uid === process.getuid?.() && (mode & 0o077) === 0) return;
  const issue = `${dir} belongs to another user or is open to others: remove it, or choose another directory with SLIME_STORE_DIR`;
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

function openIfThere(path: string, flags: string): number | undefined {
  try {
    return openSync(path, flags);
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return undefined;
    throw error;
  }
}

function tryRename(from: string, to: string): boolean {
  try {
    renameSync(from, to);
    return true;
  } catch (error) {
    if (errnoOf(error) === "ENOENT") return false;
    throw error;
  }
}
