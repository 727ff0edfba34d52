import { mkdir, readdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import type { ExportedWeights } from "@slime/backend";
import { SlimeError } from "@slime/core";
import { writeModelDirectory } from "@slime/sglang";

/** Exports kept on disk: the last one, and the one an engine may still be reading. */
const exportsKept = 2;

/** The directory of one version, as upstream names it. */
export const exportName = (version: number): string => `weight_v${String(version).padStart(6, "0")}`;

export interface DiskExportRequest {
  /** What the trainer laid out in memory. */
  readonly weights: ExportedWeights;
  readonly version: number;
  /** Holds the directories of all versions. */
  readonly directory: string;
  /** Where configuration and tokenizer come from. */
  readonly model: string;
  readonly keepAll: boolean;
}

/**
 * Writes an export as a Hugging Face directory, which servers of any machine that sees it can load. It is whole once it has its name.
 * Directories of older versions go, except the one before. @throws `disk.full`, or what the file system says.
 */
export async function exportToDisk({ weights, version, directory, model, keepAll }: DiskExportRequest): Promise<ExportedWeights> {
  const path = join(directory, exportName(version));
  const part = `${path}.part`;
  try {
    await mkdir(directory, { recursive: true });
    await writeModelDirectory(part, model, { ...weights, kind: "shared-memory" });
    await rm(path, { recursive: true, force: true });
    await rename(part, path);
  } catch (error) {
    await rm(part, { recursive: true, force: true });
    if (!(error instanceof Error && "code" in error && (error.code === "ENOSPC" || error.code === "EDQUOT"))) throw error;
    const what = `no space left for ${weights.bytes} bytes at ${path}: free some, or give another --update-weight-disk-dir`;
    throw new SlimeError("disk.full", what, { path, needed: weights.bytes }, { cause: error });
  }
  if (!keepAll) await removeOlder(directory, version);
  return { ...weights, kind: "directory", path };
}

async function removeOlder(directory: string, version: number): Promise<void> {
  const names = (await readdir(directory)).filter((name) => /^weight_v\d+$/.test(name) && name < exportName(version)).sort();
  const older = names.slice(0, Math.max(0, names.length - (exportsKept - 1)));
  for (const name of older) await rm(join(directory, name), { recursive: true, force: true });
}
