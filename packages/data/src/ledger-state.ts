/**
 * What has become of each prompt instance, as a state machine without I/O.
 *
 *     issue → leased → finished → consumed
 *               ↑ ↓        ↓ ↑(lease)
 *              issued ←────┘            any of the three → dropped(reason)
 *
 * Invariants: L1 conservation: an instance that was issued is in exactly one phase, until a restore says otherwise; counts by phase
 * add up to the instances known. L2 an instance is consumed at most once between restores, and `consumed` and `dropped` are final.
 * L3 an instance is finished only by the rollout that leases it. L4 a command that is repeated changes nothing (its effect is there, or
 * its operation id is known). L5 a command is applied to all of its instances or to none.
 */
import { SlimeError, unreachable } from "@slime/core";

/** Where an instance stands. Rollout ids say who did it. */
export type LedgerEntry =
  | { readonly phase: "issued"; readonly issuedBy: number; readonly attempts: number }
  | { readonly phase: "leased"; readonly issuedBy: number; readonly attempts: number; readonly rolloutId: number }
  | { readonly phase: "finished"; readonly issuedBy: number; readonly attempts: number; readonly rolloutId: number }
  | {
      readonly phase: "consumed";
      readonly issuedBy: number;
      readonly attempts: number;
      readonly finishedBy: number;
      readonly rolloutId: number;
      readonly step: number;
    }
  | {
      readonly phase: "dropped";
      readonly issuedBy: number;
      readonly attempts: number;
      readonly rolloutId: number;
      readonly reason: string;
    };

/** The five phases. */
export type LedgerPhase = LedgerEntry["phase"];

/** What one line of the ledger says. `ids` are instance ids, `<epoch>:<row>`. */
export type LedgerCommand =
  /** New instances leave the data source, straight into the hands of a rollout. */
  | { readonly kind: "issue"; readonly rollout: number; readonly ids: readonly string[] }
  /** Instances are handed out again; what they finished before counts no more. */
  | { readonly kind: "lease"; readonly rollout: number; readonly ids: readonly string[] }
  /** Instances wait for a rollout again. */
  | { readonly kind: "release"; readonly rollout: number; readonly ids: readonly string[] }
  | { readonly kind: "finish"; readonly rollout: number; readonly ids: readonly string[] }
  /** Their samples are in the weights after optimizer step `step`. */
  | { readonly kind: "consume"; readonly rollout: number; readonly step: number; readonly ids: readonly string[] }
  | { readonly kind: "drop"; readonly rollout: number; readonly reason: string; readonly ids: readonly string[] }
  /** Everything is as the snapshot says: weights, optimizer and data cursor went back to `checkpoint` with it. Null: all empty. */
  | { readonly kind: "restore"; readonly checkpoint: string | null; readonly snapshot: LedgerSnapshot | null };

/** The whole ledger as plain JSON, for manifests; instances that share a history share a row. */
export type LedgerSnapshot = {
  readonly version: 1;
  readonly rows: readonly { readonly entry: LedgerEntry; readonly ids: readonly string[] }[];
};

/** Most instances of one command. */
export const commandInstancesMax = 1_000_000;

/** Instances in each phase; they add up to all that were issued (L1). */
export type LedgerCounts = Readonly<Record<LedgerPhase, number>>;

/** Changed in place by `applyCommand` alone. */
export class LedgerState {
  readonly #entries = new Map<string, LedgerEntry>();
  readonly #counts = { issued: 0, leased: 0, finished: 0, consumed: 0, dropped: 0 };
  readonly #operations = new Set<string>();

  entry(id: string): LedgerEntry | undefined {
    return this.#entries.get(id);
  }

  entries(): IterableIterator<[string, LedgerEntry]> {
    return this.#entries.entries();
  }

  counts(): LedgerCounts {
    return { ...this.#counts };
  }

  get size(): number {
    return this.#entries.size;
  }

  knows(operationId: string): boolean {
    return this.#operations.has(operationId);
  }

  /** @internal One instance's move; returns its undoing. */
  set(id: string, entry: LedgerEntry): () => void {
    const before = this.#entries.get(id);
    this.#entries.set(id, entry);
    this.#counts[entry.phase]++;
    if (before !== undefined) this.#counts[before.phase]--;
    return () => {
      this.#counts[entry.phase]--;
      if (before === undefined) this.#entries.delete(id);
      else {
        this.#entries.set(id, before);
        this.#counts[before.phase]++;
      }
    };
  }

  /** @internal */
  remember(operationId: string): () => void {
    this.#operations.add(operationId);
    return () => this.#operations.delete(operationId);
  }

  /** @internal Empties everything, operations too; returns its undoing. */
  clear(): () => void {
    const entries = [...this.#entries];
    const counts = this.counts();
    const operations = [...this.#operations];
    this.#entries.clear();
    this.#operations.clear();
    for (const phase of ["issued", "leased", "finished", "consumed", "dropped"] as const) this.#counts[phase] = 0;
    return () => {
      this.#entries.clear();
      for (const [id, entry] of entries) this.#entries.set(id, entry);
      for (const operation of operations) this.#operations.add(operation);
      Object.assign(this.#counts, counts);
    };
  }
}

/**
 * Applies one command; returns null when there was nothing left to do (L4), else how to undo it.
 * Ids whose part of the command is done already are passed over.
 * @throws SlimeError `conflict` or `not_found` that names the first instance it does not fit, with nothing changed (L5).
 */
export function applyCommand(state: LedgerState, command: LedgerCommand, operationId: string | null): (() => void) | null {
  if (operationId !== null && state.knows(operationId)) return null;
  const undo = command.kind === "restore" ? restore(state, command.snapshot) : move(state, command);
  if (undo.length === 0) return null;
  if (operationId !== null) undo.push(state.remember(operationId));
  return () => {
    for (const step of undo.reverse()) step();
  };
}

function move(state: LedgerState, command: Exclude<LedgerCommand, { kind: "restore" }>): (() => void)[] {
  if (command.ids.length > commandInstancesMax)
    throw new SlimeError("wire.limit", `one ledger command names ${command.ids.length} instances, more than commandInstancesMax`, {
      what: "commandInstancesMax",
      value: command.ids.length,
      max: commandInstancesMax,
    });
  const moves = new Map<string, LedgerEntry>();
  for (const id of command.ids) {
    const next = moved(id, state.entry(id), command);
    if (next !== null) moves.set(id, next);
  }
  return [...moves].map(([id, entry]) => state.set(id, entry));
}

function restore(state: LedgerState, snapshot: LedgerSnapshot | null): (() => void)[] {
  if (snapshot !== null && snapshot.version !== 1)
    throw new SlimeError("journal.unreadable", `a ledger snapshot of version ${String(snapshot.version)} needs a newer slime`, {
      path: "snapshot",
      found: Number(snapshot.version),
      known: 1,
    });
  const undo = [state.clear()];
  for (const { entry, ids } of snapshot?.rows ?? []) for (const id of ids) undo.push(state.set(id, entry));
  return undo;
}

/** The instance's next entry, or null when the command's effect is there already. */
function moved(id: string, entry: LedgerEntry | undefined, command: Exclude<LedgerCommand, { kind: "restore" }>): LedgerEntry | null {
  const { rollout } = command;
  if (command.kind === "issue") {
    if (entry === undefined) return { phase: "leased", issuedBy: rollout, attempts: 1, rolloutId: rollout };
    return entry.issuedBy === rollout ? null : refuse(id, entry, command);
  }
  if (entry === undefined)
    throw new SlimeError("not_found", `ledger: prompt instance ${id} was never issued, so rollout ${rollout} cannot ${command.kind} it`, {
      kind: "prompt instance",
      id,
    });
  const { issuedBy, attempts } = entry;
  const isOpen = entry.phase === "issued" || entry.phase === "leased" || entry.phase === "finished";
  switch (command.kind) {
    case "lease":
      if (entry.phase === "leased" && entry.rolloutId === rollout) return null;
      return isOpen ? { phase: "leased", issuedBy, attempts: attempts + 1, rolloutId: rollout } : refuse(id, entry, command);
    case "release":
      if (entry.phase === "issued") return null;
      return isOpen ? { phase: "issued", issuedBy, attempts } : refuse(id, entry, command);
    case "finish":
      if (entry.phase === "leased" && entry.rolloutId === rollout) return { phase: "finished", issuedBy, attempts, rolloutId: rollout };
      if (entry.phase === "finished" && entry.rolloutId === rollout) return null;
      if (entry.phase === "consumed" && entry.finishedBy === rollout) return null;
      return refuse(id, entry, command);
    case "consume":
      if (entry.phase === "finished")
        return { phase: "consumed", issuedBy, attempts, finishedBy: entry.rolloutId, rolloutId: rollout, step: command.step };
      if (entry.phase === "consumed" && entry.rolloutId === rollout && entry.step === command.step) return null;
      return refuse(id, entry, command);
    case "drop":
      if (isOpen) return { phase: "dropped", issuedBy, attempts, rolloutId: rollout, reason: command.reason };
      if (entry.phase === "dropped" && entry.rolloutId === rollout && entry.reason === command.reason) return null;
      return refuse(id, entry, command);
    default:
      return unreachable(command);
  }
}

function refuse(id: string, entry: LedgerEntry, command: Exclude<LedgerCommand, { kind: "restore" }>): never {
  throw new SlimeError(
    "conflict",
    `ledger: rollout ${command.rollout} cannot ${command.kind} prompt instance ${id}: it is ${describeEntry(entry)}`,
    { kind: "prompt instance", id },
  );
}

/** For messages: "consumed by rollout 3 at step 7". */
export function describeEntry(entry: LedgerEntry): string {
  switch (entry.phase) {
    case "issued":
      return `waiting, issued by rollout ${entry.issuedBy}`;
    case "leased":
    case "finished":
      return `${entry.phase} by rollout ${entry.rolloutId}`;
    case "consumed":
      return `consumed by rollout ${entry.rolloutId} at step ${entry.step}`;
    case "dropped":
      return `dropped by rollout ${entry.rolloutId} (${entry.reason})`;
    default:
      return unreachable(entry);
  }
}

/** The state as plain JSON; `restore` makes the same state of it. */
export function snapshotOf(state: LedgerState): LedgerSnapshot {
  const rows = new Map<string, { entry: LedgerEntry; ids: string[] }>();
  for (const [id, entry] of state.entries()) {
    const key = JSON.stringify(entry);
    const row = rows.get(key);
    if (row === undefined) rows.set(key, { entry, ids: [id] });
    else row.ids.push(id);
  }
  return { version: 1, rows: [...rows.values()] };
}
