/**
 * Was every prompt trained exactly once? Three records that nobody could have made agree by accident are compared over the lineage of
 * the newest checkpoint: which instances left the data (recomputed from file, seed and cursor), what the ledger's file says of each, and
 * which the trainer itself wrote down as applied.
 */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import { describeEntry, type LedgerEntry, readLedger } from "@slime/data";
import { type AppliedStep, readApplied } from "./applied-record.js";
import { decodeManifest, type Manifest } from "./manifest.js";
import type { PromptSource } from "./ports.js";
import { type RunPaths, readCheckpoints } from "./run-directory.js";
import type { StoredCheckpoint } from "./run-records.js";

export interface AuditRecords {
  /** Instances that left the data source, in its order. */
  readonly issued: readonly string[];
  readonly ledger: ReadonlyMap<string, LedgerEntry>;
  readonly applied: readonly AppliedStep[];
  /** Instances the checkpoint hands out again after a resume. */
  readonly pending: ReadonlySet<string>;
  /** Rollouts in the checkpoint's weights. */
  readonly trained: number;
  readonly samplesPerGroup: number;
}

export type FindingKind = "lost" | "duplicate" | "swapped" | "unknown" | "incomplete";

export interface Finding {
  readonly kind: FindingKind;
  readonly instanceId: string;
  readonly message: string;
}

export interface AuditReport {
  readonly checkpoint: string;
  readonly trained: number;
  readonly issued: number;
  readonly consumed: number;
  readonly dropped: Readonly<Record<string, number>>;
  readonly pending: number;
  readonly findings: readonly Finding[];
}

/** Compares the three records. No finding: no prompt was lost, none trained twice. */
export function compareRecords(records: AuditRecords): readonly Finding[] {
  const { ledger, pending, trained, samplesPerGroup } = records;
  const findings: Finding[] = [];
  const applied = appliedById(records.applied);
  const issued = new Set(records.issued);
  const unapplied = new Map<number, string[]>();
  const extra = new Map<number, string[]>();

  for (const id of records.issued) {
    const entry = ledger.get(id);
    const rollouts = applied.get(id);
    if (entry === undefined) {
      findings.push({
        kind: "lost",
        instanceId: id,
        message: `${id} left the data source, but the ledger never heard of it${rollouts === undefined ? "" : "; the trainer applied it"}`,
      });
      continue;
    }
    const isConsumed = entry.phase === "consumed" && entry.rolloutId < trained;
    if (isConsumed && rollouts === undefined) push(unapplied, entry.rolloutId, id);
    else if (isConsumed && rollouts !== undefined) findings.push(...compareOne(id, entry.rolloutId, rollouts, samplesPerGroup));
    else if (!isConsumed && rollouts !== undefined) for (const rolloutId of rollouts.keys()) push(extra, rolloutId, id);
    else if ((entry.phase === "leased" || entry.phase === "finished") && entry.rolloutId < trained) {
      findings.push({ kind: "lost", instanceId: id, message: `${id} is still ${describeEntry(entry)}, which has trained without it` });
    } else if (entry.phase !== "dropped" && !pending.has(id)) {
      findings.push({
        kind: "lost",
        instanceId: id,
        message: `${id} is ${describeEntry(entry)}, and the checkpoint does not hand it out again`,
      });
    }
  }
  for (const [id, rollouts] of applied) if (!issued.has(id)) for (const rolloutId of rollouts.keys()) push(extra, rolloutId, id);
  for (const [id, entry] of ledger) {
    if (
      !issued.has(id) &&
      entry.issuedBy < trained &&
      entry.phase === "consumed" &&
      entry.rolloutId < trained &&
      applied.get(id) === undefined
    )
      push(unapplied, entry.rolloutId, id);
  }
  findings.push(...pairUp(unapplied, extra, ledger, issued));
  return findings;
}

function appliedById(steps: readonly AppliedStep[]): ReadonlyMap<string, ReadonlyMap<number, number>> {
  const byId = new Map<string, Map<number, number>>();
  for (const { rolloutId, instances } of steps) {
    for (const [id, samples] of instances) {
      const rollouts = byId.get(id) ?? new Map<number, number>();
      byId.set(id, rollouts.set(rolloutId, (rollouts.get(rolloutId) ?? 0) + samples));
    }
  }
  return byId;
}

/** An instance that ledger and trainer both have: same rollout, once, whole. */
function compareOne(id: string, rolloutId: number, rollouts: ReadonlyMap<number, number>, samplesPerGroup: number): readonly Finding[] {
  const trainedIn = [...rollouts.keys()].sort((a, b) => a - b);
  const [first] = trainedIn;
  if (trainedIn.length > 1)
    return [
      { kind: "duplicate", instanceId: id, message: `${id} was trained ${trainedIn.length} times: in rollouts ${trainedIn.join(" and ")}` },
    ];
  if (first !== rolloutId)
    return [
      {
        kind: "swapped",
        instanceId: id,
        message: `${id} was consumed by rollout ${rolloutId} says the ledger, by ${first} says the trainer`,
      },
    ];
  const samples = rollouts.get(rolloutId) ?? 0;
  if (samples > samplesPerGroup)
    return [
      {
        kind: "duplicate",
        instanceId: id,
        message: `${id} was trained with ${samples} samples in rollout ${rolloutId}; a group has ${samplesPerGroup}`,
      },
    ];
  if (samples < samplesPerGroup)
    return [
      {
        kind: "incomplete",
        instanceId: id,
        message: `${id} was trained with ${samples} of ${samplesPerGroup} samples in rollout ${rolloutId}`,
      },
    ];
  return [];
}

/** In one rollout, what the ledger has and the trainer has not goes with what the trainer has and the ledger has not. */
function pairUp(
  unapplied: ReadonlyMap<number, readonly string[]>,
  extra: ReadonlyMap<number, readonly string[]>,
  ledger: ReadonlyMap<string, LedgerEntry>,
  issued: ReadonlySet<string>,
): readonly Finding[] {
  const findings: Finding[] = [];
  for (const rolloutId of new Set([...unapplied.keys(), ...extra.keys()])) {
    const missing = unapplied.get(rolloutId) ?? [];
    const surplus = extra.get(rolloutId) ?? [];
    for (let i = 0; i < Math.max(missing.length, surplus.length); i++) {
      const [ours, theirs] = [missing[i], surplus[i]];
      if (ours !== undefined && theirs !== undefined)
        findings.push({
          kind: "swapped",
          instanceId: ours,
          message: `in rollout ${rolloutId} the ledger says ${ours} was trained, the trainer says ${theirs}`,
        });
      else if (ours !== undefined)
        findings.push({
          kind: "lost",
          instanceId: ours,
          message: `${ours} was consumed by rollout ${rolloutId} says the ledger, but the trainer never applied it`,
        });
      else if (theirs !== undefined) {
        const entry = ledger.get(theirs);
        const says = entry === undefined ? "the ledger never heard of it" : `the ledger says it is ${describeEntry(entry)}`;
        findings.push({
          kind: issued.has(theirs) ? "duplicate" : "unknown",
          instanceId: theirs,
          message: `the trainer applied ${theirs} in rollout ${rolloutId}, but ${issued.has(theirs) ? says : "it never left the data source"}`,
        });
      }
    }
  }
  return findings;
}

function push(map: Map<number, string[]>, key: number, value: string): void {
  const list = map.get(key);
  if (list === undefined) map.set(key, [value]);
  else list.push(value);
}

export interface AuditParts {
  readonly paths: RunPaths;
  /** The run's data, opened anew from the file by the run's own settings. */
  readonly openSource: () => Promise<PromptSource & { readonly close: () => Promise<void> }>;
  readonly samplesPerGroup: number;
}

/** Reads a run directory and compares. @throws `not_found` without a checkpoint, `checkpoint.invalid`, `data.invalid`, `state.damaged`. */
export async function auditRun(parts: AuditParts): Promise<AuditReport> {
  const { paths } = parts;
  const checkpoints = await readCheckpoints(paths.checkpoints);
  const newest = checkpoints.at(-1);
  if (newest === undefined)
    throw new SlimeError("not_found", `${paths.checkpoints} holds no checkpoint: there is nothing to audit before the first`, {
      kind: "checkpoint",
      id: paths.checkpoints,
    });
  const manifest = decodeManifest(newest.manifest, join(newest.directory, "manifest.json"));
  const { state } = readLedger(await readFile(paths.ledger), paths.ledger);
  const ledger = new Map(state.entries());
  const applied = await readApplied(newest.directory);
  const source = await parts.openSource();
  const issued = await issuedIds(source, manifest.cursor, newest.directory).finally(() => source.close());
  const pending = new Set(manifest.pending.map((group) => group.instanceId));
  const findings = [
    ...compareRecords({ issued, ledger, applied, pending, trained: manifest.trained, samplesPerGroup: parts.samplesPerGroup }),
    ...(await lineageFindings(checkpoints, manifest, applied)),
  ];
  const dropped: Record<string, number> = {};
  let consumed = 0;
  for (const id of issued) {
    const entry = ledger.get(id);
    if (entry?.phase === "dropped") dropped[entry.reason] = (dropped[entry.reason] ?? 0) + 1;
    if (entry?.phase === "consumed" && entry.rolloutId < manifest.trained) consumed++;
  }
  return { checkpoint: newest.name, trained: manifest.trained, issued: issued.length, consumed, dropped, pending: pending.size, findings };
}

/** Everything between the beginning of the data and the cursor. The source refuses a cursor of other data itself. */
async function issuedIds(source: PromptSource, cursor: unknown, directory: string): Promise<readonly string[]> {
  const origin = source.state();
  await source.restore(cursor);
  const { epoch, offset } = (typeof cursor === "object" && cursor !== null ? cursor : {}) as {
    readonly epoch?: unknown;
    readonly offset?: unknown;
  };
  if (typeof epoch !== "number" || typeof offset !== "number")
    throw new SlimeError("checkpoint.invalid", `the manifest of ${directory} has no cursor`, { path: directory, reason: "no cursor" });
  await source.restore(origin);
  const ids: string[] = [];
  for (let left = epoch * source.size + offset; left > 0; ) {
    const groups = await source.take(Math.min(left, 4_096));
    for (const group of groups) ids.push(group.instanceId);
    left -= groups.length;
  }
  return ids;
}

/** What an ancestor that is still there had applied must be in the newest checkpoint too, in the same rollouts. */
async function lineageFindings(
  checkpoints: readonly StoredCheckpoint[],
  newest: Manifest,
  applied: readonly AppliedStep[],
): Promise<readonly Finding[]> {
  const findings: Finding[] = [];
  const final = appliedById(applied);
  for (let name = newest.parent; name !== null; ) {
    const stored = checkpoints.find((checkpoint) => checkpoint.name === name);
    if (stored === undefined) break;
    const manifest = decodeManifest(stored.manifest, join(stored.directory, "manifest.json"));
    for (const [id, rollouts] of appliedById(await readApplied(stored.directory))) {
      for (const rolloutId of rollouts.keys()) {
        if (final.get(id)?.has(rolloutId) !== true)
          findings.push({
            kind: "lost",
            instanceId: id,
            message: `${id} was trained in rollout ${rolloutId} of ${manifest.name}, which ${newest.name} descends from but does not contain`,
          });
      }
    }
    name = manifest.parent;
  }
  return findings;
}
