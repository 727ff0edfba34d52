import { SlimeError } from "@slime/core";
import type { ProcessIdentity } from "./process-table.js";

/**
 * The record of a process that a daemon owns: enough for the next daemon to find it, to know that it is the same one, to
 * read its logs and to say how it ended. Versioned JSON; `test/golden/ownership.json` holds one of each kind.
 * Invariants: O1 the record is durable before the process is told what to do; O2 `identity` names the process itself,
 * `parent` the shell that waits for it and leads its group; O3 a record outlives its process until its end was reported.
 */
export interface OwnershipRecord {
  readonly version: 1;
  readonly processId: string;
  /** A host that may become an actor, or a job's driver. */
  readonly kind: "host" | "driver";
  readonly clusterId: string;
  readonly nodeId: string;
  readonly identity: ProcessIdentity;
  readonly parent: ProcessIdentity;
  readonly command: readonly string[];
  /** Null while a pooled host belongs to nobody. */
  readonly assignment: Assignment | null;
  readonly logs: { readonly stdout: string; readonly stderr: string };
  /** The waiting shell writes the exit status there, atomically, as one decimal number and a newline. */
  readonly exitFile: string;
  /** Milliseconds since 1970, for display. */
  readonly startedAtMs: number;
}

export type Assignment =
  | { readonly kind: "actor"; readonly jobId: string; readonly actorId: string; readonly incarnation: number; readonly name: string }
  | { readonly kind: "job"; readonly jobId: string; readonly attempt: number };

/** The record as it lies on disk. */
export function encodeOwnership(record: OwnershipRecord): string {
  return `${JSON.stringify(record, null, 2)}\n`;
}

/** @throws SlimeError `state.damaged` that names the file and what is wrong in it. */
export function decodeOwnership(text: string, path: string): OwnershipRecord {
  const damaged = (where: string) =>
    new SlimeError("state.damaged", `the ownership record ${path} cannot be read: ${where}`, { path, where });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw damaged(`it is not JSON (${String(error)})`);
  }
  const issue = problemOf(value);
  if (issue !== null) throw damaged(issue);
  return value as OwnershipRecord;
}

type Check = (value: unknown) => boolean;
const isText: Check = (value) => typeof value === "string";
const isCount: Check = (value) => Number.isSafeInteger(value) && Number(value) >= 0;
const isTexts: Check = (value) => Array.isArray(value) && value.every(isText);
const shape =
  (fields: Readonly<Record<string, Check>>): Check =>
  (value) =>
    isObject(value) && Object.entries(fields).every(([name, check]) => check(value[name]));
const isIdentity = shape({ bootId: isText, pid: isCount, startTime: isText });
const isAssignment: Check = (value) =>
  value === null ||
  shape({ kind: (kind) => kind === "actor", jobId: isText, actorId: isText, incarnation: isCount, name: isText })(value) ||
  shape({ kind: (kind) => kind === "job", jobId: isText, attempt: isCount })(value);

const fields: Readonly<Record<keyof OwnershipRecord, Check>> = {
  version: (version) => version === 1,
  processId: isText,
  kind: (kind) => kind === "host" || kind === "driver",
  clusterId: isText,
  nodeId: isText,
  identity: isIdentity,
  parent: isIdentity,
  command: isTexts,
  assignment: isAssignment,
  logs: shape({ stdout: isText, stderr: isText }),
  exitFile: isText,
  startedAtMs: isCount,
};

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function problemOf(value: unknown): string | null {
  if (!isObject(value)) return "it is not an object";
  if (value["version"] !== 1) return `version ${JSON.stringify(value["version"])} is not known here (1 is)`;
  const wrong = Object.entries(fields).find(([name, check]) => !check(value[name]));
  return wrong === undefined ? null : `field ${wrong[0]} is missing or malformed`;
}
