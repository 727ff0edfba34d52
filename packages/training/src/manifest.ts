/**
 * The manifest: everything a run goes back to, together. It is written last, into a directory that is then renamed, so a checkpoint
 * exists whole or not at all.
 * M1 what it names exists with these sizes and digests; M2 cursor, ledger and pending prompts were taken at one moment, after all of
 * `trained` rollouts were consumed and before any other was; M3 it says what it descends from, so that a lineage can be walked.
 */
import { createHash } from "node:crypto";
import { SlimeError } from "@slime/core";
import type { PromptGroup } from "./ports.js";
import type { CheckpointFile } from "./run-records.js";

export const manifestFormat = { format: "slime.checkpoint", version: 1 } as const;

export interface Manifest {
  readonly format: typeof manifestFormat.format;
  readonly version: typeof manifestFormat.version;
  readonly runId: string;
  readonly name: string;
  /** The checkpoint these weights descend from; null: the initial weights. */
  readonly parent: string | null;
  readonly attempt: number;
  readonly era: number;
  /** Rollouts in the weights; the next has this id. */
  readonly trained: number;
  /** Optimizer steps in the weights. */
  readonly step: number;
  /** Highest weight version begun so far. */
  readonly weightVersion: number;
  readonly cursor: unknown;
  readonly ledger: unknown;
  /** Prompts that left the source and are not consumed: handed out again, first, after a resume. */
  readonly pending: readonly PromptGroup[];
  /** Prompts that failed so far, and those issued: the bound on failures counts over resumes. */
  readonly failures: { readonly failed: number; readonly issued: number };
  readonly files: readonly CheckpointFile[];
  readonly createdAtMs: number;
}

/** `step-0000012`: rollouts trained, seven digits. */
export function checkpointName(trained: number): string {
  return `step-${String(trained).padStart(7, "0")}`;
}

/** Two lines: the digest of the second, and the manifest; so that a damaged one is told from a whole one. */
export function encodeManifest(manifest: Manifest): string {
  const body = JSON.stringify(manifest);
  return `${JSON.stringify({ sha256: digest(body) })}\n${body}\n`;
}

/** @throws `checkpoint.invalid` (damaged, not a manifest) or `journal.unreadable` (of a newer version). */
export function decodeManifest(text: string, path: string): Manifest {
  const invalid = (reason: string, cause?: unknown) =>
    new SlimeError("checkpoint.invalid", `${path} ${reason}`, { path, reason }, { cause });
  const [head = "", body = ""] = text.split("\n");
  let manifest: Partial<Manifest>;
  try {
    const { sha256 } = JSON.parse(head) as { readonly sha256?: unknown };
    if (sha256 !== digest(body)) throw invalid("does not match its digest: it is damaged");
    manifest = JSON.parse(body) as Partial<Manifest>;
  } catch (error) {
    throw SlimeError.isAny(error) ? error : invalid("is no manifest", error);
  }
  if (manifest.format !== manifestFormat.format || typeof manifest.version !== "number") throw invalid("is no manifest of a checkpoint");
  if (manifest.version !== manifestFormat.version) {
    throw new SlimeError(
      "journal.unreadable",
      `${path} has version ${manifest.version}, this slime reads ${manifestFormat.version}: resume with the slime that wrote it`,
      { path, found: manifest.version, known: manifestFormat.version },
    );
  }
  return manifest as Manifest;
}

function digest(text: string): string {
  return createHash("sha256").update(text).digest("hex");
}
