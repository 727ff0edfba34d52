import { existsSync, readFileSync, renameSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { freeDir, jobDirsIn, names, remove, settingsFile, weigh } from "./layout.js";

/** What a store holds, counted file by file. */
export interface StoreUsage {
  readonly objects: number;
  readonly usedBytes: number;
  /** Segments that wait to be used again; they count against the capacity until something else needs the room. */
  readonly recyclableBytes: number;
  readonly capacityBytes: number;
}

/** A part of what is left, which a process may take before it counts again: others take theirs meanwhile. */
const trustedFraction = 1 / 16;

/**
 * Room in a store without a manager: every process counts the files now and then, and in between trusts its count for a
 * fraction of what was left. Invariant O3: with n processes, the capacity is passed by at most n/16 of what was left at the
 * oldest count; the file system's own end is an error too, never a broken object.
 */
export class Capacity {
  readonly #dir: string;
  readonly capacityBytes: number;
  #trustedBytes = 0;

  constructor(dir: string, capacityBytes: number) {
    this.#dir = dir;
    this.capacityBytes = capacityBytes;
  }

  usage(): StoreUsage {
    let objects = 0;
    let usedBytes = 0;
    for (const job of jobDirsIn(this.#dir)) {
      const { files, bytes } = weigh(join(this.#dir, job));
      objects += files;
      usedBytes += bytes;
    }
    let recyclableBytes = 0;
    for (const size of names(join(this.#dir, freeDir))) recyclableBytes += weigh(join(this.#dir, freeDir, size)).bytes;
    return { objects, usedBytes, recyclableBytes, capacityBytes: this.capacityBytes };
  }

  /** Makes sure that a new segment of `bytes` may be created, dropping recyclable ones for it. @throws `object_store.full` with the numbers. */
  reserve(bytes: number): void {
    if (bytes <= this.#trustedBytes) {
      this.#trustedBytes -= bytes;
      return;
    }
    const { usedBytes, recyclableBytes } = this.usage();
    const left = this.capacityBytes - usedBytes;
    if (bytes > left) throw this.full(bytes, left);
    if (bytes > left - recyclableBytes) this.#dropRecyclable(bytes - (left - recyclableBytes));
    this.#trustedBytes = Math.max(0, left - recyclableBytes - bytes) * trustedFraction;
  }

  full(needed: number, free: number, cause?: unknown): SlimeError<"object_store.full"> {
    const message = `the object store ${this.#dir} has ${Math.max(0, free)} of ${this.capacityBytes} bytes free, ${needed} are needed: free references no longer wanted, or give the store more`;
    return new SlimeError("object_store.full", message, { needed, free: Math.max(0, free), capacity: this.capacityBytes }, { cause });
  }

  /** The file system itself is full. */
  systemFull(needed: number, cause: unknown): SlimeError<"object_store.full"> {
    const { bavail, bsize } = statfsSync(this.#dir);
    return this.full(needed, bavail * bsize, cause);
  }

  #dropRecyclable(bytes: number): void {
    let dropped = 0;
    const sizes = names(join(this.#dir, freeDir))
      .map(Number)
      .sort((a, b) => b - a);
    for (const size of sizes) {
      for (const name of names(join(this.#dir, freeDir, String(size)))) {
        if (dropped >= bytes) return;
        remove(join(this.#dir, freeDir, String(size), name));
        dropped += size;
      }
    }
  }
}

/** Half of the file system that holds `dir`. */
export function defaultCapacity(dir: string): number {
  const { blocks, bsize } = statfsSync(dir);
  return Math.floor((blocks * bsize) / 2);
}

/** Reads the store's capacity from its settings, writing them first if there are none. Whoever comes first decides for all. */
export function settledCapacity(dir: string, wantedBytes: number | undefined): number {
  const path = join(dir, settingsFile);
  if (!existsSync(path)) {
    const draft = `${path}.${process.pid}`;
    writeFileSync(draft, `${JSON.stringify({ version: 1, capacityBytes: wantedBytes ?? defaultCapacity(dir) })}\n`);
    renameSync(draft, path);
  }
  const settings = JSON.parse(readFileSync(path, "utf8")) as { readonly capacityBytes?: unknown };
  if (typeof settings.capacityBytes !== "number")
    throw new SlimeError("state.damaged", `${path} does not give capacityBytes; remove the directory when nothing runs`, {
      path,
      where: "capacityBytes",
    });
  return settings.capacityBytes;
}
