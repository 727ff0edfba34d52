import { type FileHandle, open } from "node:fs/promises";
import { SlimeError } from "@slime/core";
import { missingFile } from "./files.js";
import { bytesOf, headerBytesOf, parseHeader, type TensorEntry, widen } from "./safetensors.js";

/** Bytes of a file held at once while its tensors are read. */
const chunkBytes = 4 << 20;

/**
 * A safetensors file, its tensors read one at a time to where they belong: memory beside the destination is `chunkBytes`, whatever the
 * file's size. F32, F16 and BF16 become single precision.
 */
export class SafetensorsFile implements AsyncDisposable {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, TensorEntry>;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle, tensors: ReadonlyMap<string, TensorEntry>) {
    this.path = path;
    this.#file = file;
    this.tensors = tensors;
  }

  /** Reads the header. @param wanted what the file is needed for. @throws `file.missing`, `checkpoint.invalid`. */
  static async open(path: string, wanted: string): Promise<SafetensorsFile> {
    let file: FileHandle;
    try {
      file = await open(path, "r");
    } catch (cause) {
      throw missingFile(cause, path, wanted);
    }
    try {
      const { size } = await file.stat();
      const start = new Uint8Array(Math.min(8, size));
      await readFully(file, start, 0, path);
      const header = new Uint8Array(headerBytesOf(start, size, path));
      await readFully(file, header, 8, path);
      return new SafetensorsFile(path, file, parseHeader(header, size, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** Reads one tensor into `out`, which has its number of elements. @throws `checkpoint.invalid` when the file ends early. */
  async read(entry: TensorEntry, out: Float32Array): Promise<void> {
    const size = bytesOf(entry.dtype);
    const chunk = new Uint8Array(Math.min(chunkBytes, entry.count * size));
    for (let done = 0; done < entry.count; ) {
      const count = Math.min(entry.count - done, chunkBytes / size);
      const bytes = chunk.subarray(0, count * size);
      await readFully(this.#file, bytes, entry.from + done * size, this.path);
      widen(bytes, entry.dtype, out.subarray(done, done + count));
      done += count;
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.#file.close();
  }
}

async function readFully(file: FileHandle, into: Uint8Array, position: number, path: string): Promise<void> {
  for (let at = 0; at < into.length; ) {
    const { bytesRead } = await file.read(into, at, into.length - at, position + at);
    if (bytesRead === 0) {
      const reason = `the file ended at byte ${position + at}: it is cut off`;
      throw new SlimeError("checkpoint.invalid", `${path}: ${reason}`, { path, reason });
    }
    at += bytesRead;
  }
}
