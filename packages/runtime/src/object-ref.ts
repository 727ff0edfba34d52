import { invariant, SlimeError } from "@slime/core";
import type { ObjectDescriptor } from "@slime/rpc";

declare const valueType: unique symbol;

/** What a reference stands for, by now. */
export type RefState =
  | { readonly kind: "pending"; readonly waiters: (() => void)[]; readonly source: RefSource }
  | { readonly kind: "value"; readonly value: unknown }
  | { readonly kind: "stored"; readonly object: ObjectDescriptor }
  | { readonly kind: "failed"; readonly error: unknown };

/** Says whom a pending reference waits for, for people. */
export interface RefSource {
  readonly describe: () => Readonly<Record<string, unknown>>;
  /** Asks the callee what it does; never rejects. */
  readonly inquire?: () => Promise<Readonly<Record<string, unknown>>>;
}

let stateOf: (ref: ObjectRef<unknown>) => RefState;
let moveTo: (ref: ObjectRef<unknown>, state: RefState) => void;

/**
 * Stands for a value that may lie elsewhere or not exist yet. Immutable once settled.
 * R1: it is not thenable, so an async function can pass it on without fetching it; `get(ref)` fetches.
 * R2: it leaves `pending` once.
 */
export class ObjectRef<T> {
  declare readonly [valueType]: T;
  readonly id: string;
  #state: RefState;

  /** Made by the runtime (`.remote`, `put`), never by users. */
  constructor(id: string, state: RefState) {
    this.id = id;
    this.#state = state;
  }

  static {
    stateOf = (ref) => ref.#state;
    moveTo = (ref, state) => {
      ref.#state = state;
    };
  }

  toString(): string {
    return `ObjectRef(${this.id}, ${this.#state.kind})`;
  }
  [Symbol.for("nodejs.util.inspect.custom")](): string {
    return this.toString();
  }
}

/** The state of a reference; for the runtime's own parts. */
export function refState(ref: ObjectRef<unknown>): RefState {
  return stateOf(ref);
}

/** Settles a pending reference and wakes whoever waits (R2). */
export function settleRef(ref: ObjectRef<unknown>, outcome: Exclude<RefState, { kind: "pending" }>): void {
  const before = stateOf(ref);
  invariant(before.kind === "pending", "R2: a reference settles once");
  moveTo(ref, outcome);
  for (const wake of before.waiters) wake();
}

/** A freed reference stays, and says so. */
export function markFreed(ref: ObjectRef<unknown>): void {
  if (stateOf(ref).kind === "pending") return;
  moveTo(ref, {
    kind: "failed",
    error: new SlimeError("object.lost", `${ref.id} was freed by this process`, { objectId: ref.id, reason: "freed" }),
  });
}

/** Calls back once when the reference is settled, at once if it is. Returns how to stop waiting. */
export function onSettled(ref: ObjectRef<unknown>, wake: () => void): () => void {
  const state = stateOf(ref);
  if (state.kind !== "pending") {
    wake();
    return () => {};
  }
  state.waiters.push(wake);
  return () => {
    const at = state.waiters.indexOf(wake);
    if (at >= 0) state.waiters.splice(at, 1);
  };
}

/** Resolves when the reference is settled, whatever the outcome. */
export function settled(ref: ObjectRef<unknown>): Promise<void> {
  return new Promise((resolve) => onSettled(ref, resolve));
}
