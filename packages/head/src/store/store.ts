import type { Change } from "../state/effects.js";
import type { Records } from "../state/head-state.js";

/** Facts about the store itself. */
export interface StoreMeta {
  /** Version of the records' shapes. */
  readonly format: number;
  readonly clusterId: string;
  /** Lives of the head on this store. */
  readonly epoch: number;
  /** The head's time at the last commit; the next life goes on from there. */
  readonly headMs: number;
}

/** Format of the records that this version writes and reads. */
export const storeFormat = 1;

export interface StoredState {
  readonly meta: StoreMeta;
  readonly records: { readonly [T in keyof Records]: readonly (readonly [string, Records[T]])[] };
}

/**
 * Where the head's records live. Invariants: D1 when `commit` settles, its changes are on disk, all of them or, when it fails, none; D2 the epoch is one higher, and on
 * disk, before `open` settles; D3 one head at a time (the app holds the directory's lock).
 */
export interface StateStore extends AsyncDisposable {
  /** Reads everything and raises the epoch. Called once, first. @throws SlimeError `state.damaged`, `disk.full`, `unsupported`. */
  readonly open: (newClusterId: () => string) => Promise<StoredState>;
  /** Makes changes durable, in one transaction. @throws SlimeError `disk.full`. */
  readonly commit: (changes: readonly Change[], headMs: number) => Promise<void>;
  readonly close: () => Promise<void>;
}
