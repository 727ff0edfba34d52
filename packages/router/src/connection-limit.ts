import { readFileSync } from "node:fs";

/** Descriptors that the process needs beside connections. */
const spareDescriptors = 100;

/**
 * How many clients a router may serve at once: every request takes two descriptors, one to the client and one to the engine.
 * Null when the system does not say how many it gives.
 */
export function connectionsMax(openFilesMax: number | null = openFilesLimit()): number | null {
  return openFilesMax === null ? null : Math.max(1, Math.floor(openFilesMax / 2) - spareDescriptors);
}

/** The soft limit of open files of this process; null where `/proc` does not tell it, or when there is none. */
export function openFilesLimit(path = "/proc/self/limits"): number | null {
  try {
    const found = /^Max open files\s+(\d+)/m.exec(readFileSync(path, "utf8"));
    return found === null ? null : Number(found[1]);
  } catch {
    return null;
  }
}
