import { readSync, writevSync } from "node:fs";
import type { Steps } from "./steps.js";

/** Bytes between two looks at the event loop: about 2 ms of copying. */
const stepBytes = 8 * 1024 * 1024;
/** One system call's worth. Larger ones leave the processor's cache, smaller ones pay for the call. */
const callBytes = 1024 * 1024;
/** Below the system's limit of 1,024 vectors a call. */
const vectorsMax = 512;

/** Writes parts one after another from `position` on. */
export function* writeParts(fd: number, parts: readonly Uint8Array[], position: number): Steps<void> {
  let at = position;
  let vectors: Uint8Array[] = [];
  let waiting = 0;
  let sinceYield = 0;
  for (const part of parts) {
    for (let start = 0; start < part.byteLength; ) {
      const piece = part.subarray(start, Math.min(part.byteLength, start + callBytes - waiting));
      vectors.push(piece);
      waiting += piece.byteLength;
      start += piece.byteLength;
      if (waiting < callBytes && vectors.length < vectorsMax) continue;
      writeAll(fd, vectors, waiting, at);
      at += waiting;
      sinceYield += waiting;
      vectors = [];
      waiting = 0;
      if (sinceYield < stepBytes) continue;
      sinceYield = 0;
      yield;
    }
  }
  if (waiting > 0) writeAll(fd, vectors, waiting, at);
}

/** A disk that fills up takes a part and says ENOSPC only when asked again. */
function writeAll(fd: number, vectors: readonly Uint8Array[], bytes: number, position: number): void {
  const written = writevSync(fd, vectors, position);
  if (written === bytes) return;
  const rest = Buffer.concat(vectors).subarray(written);
  for (let done = 0; done < rest.length; ) done += writevSync(fd, [rest.subarray(done)], position + written + done);
}

/** Fills `into` from `position` on. False: the file ends before that. */
export function* readInto(fd: number, into: Uint8Array, position: number): Steps<boolean> {
  let sinceYield = 0;
  for (let done = 0; done < into.byteLength; ) {
    const read = readSync(fd, into, done, Math.min(callBytes, into.byteLength - done), position + done);
    if (read === 0) return false;
    done += read;
    sinceYield += read;
    if (sinceYield < stepBytes) continue;
    sinceYield = 0;
    yield;
  }
  return true;
}
