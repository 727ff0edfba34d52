/**
 * Prompts out and accounted for: data source and ledger as one, so that they are never seen apart.
 * L1 an instance that left the source is open here until it is consumed or dropped; M2 a snapshot sees the cursor, the ledger and the
 * open instances at one moment, because operations happen one after the other.
 */
import type { Manifest } from "./manifest.js";
import type { PromptGroup, PromptLedger, PromptSource } from "./ports.js";

export interface DeskSnapshot {
  readonly cursor: unknown;
  readonly ledger: unknown;
  readonly pending: readonly PromptGroup[];
  readonly failures: { readonly failed: number; readonly issued: number };
}

/** Hands prompts out, takes them back, and knows at any moment which are out. */
export class PromptDesk {
  readonly #source: PromptSource;
  readonly #ledger: PromptLedger;
  /** The cursor before anything was taken. */
  readonly #origin: unknown;
  readonly #open = new Map<string, PromptGroup>();
  #returned: PromptGroup[] = [];
  #failed = 0;
  #issued = 0;
  #queue: Promise<unknown> = Promise.resolve();

  constructor(source: PromptSource, ledger: PromptLedger) {
    this.#source = source;
    this.#ledger = ledger;
    this.#origin = source.state();
  }

  get failed(): number {
    return this.#failed;
  }

  get issued(): number {
    return this.#issued;
  }

  /** `count` groups for a rollout: returned ones first, in order, then new ones. */
  take(count: number, rolloutId: number): Promise<readonly PromptGroup[]> {
    return this.#inTurn(async () => {
      const again = this.#returned.splice(0, count);
      if (again.length > 0) await this.#ledger.lease(ids(again), rolloutId);
      if (again.length === count) return again;
      const fresh = await this.#source.take(count - again.length);
      // Open before it is durable: a snapshot cannot come between, and a crash goes back to a snapshot.
      for (const group of fresh) this.#open.set(group.instanceId, group);
      this.#issued += fresh.length;
      await this.#ledger.issue(ids(fresh), rolloutId);
      return [...again, ...fresh];
    });
  }

  /** The same groups once more for the same rollout, after their tries came back unfinished. */
  again(groups: readonly PromptGroup[], rolloutId: number): Promise<void> {
    return this.#inTurn(() => this.#ledger.lease(ids(groups), rolloutId));
  }

  finish(instanceIds: readonly string[], rolloutId: number): Promise<void> {
    return this.#inTurn(async () => {
      if (instanceIds.length > 0) await this.#ledger.finish(instanceIds, rolloutId);
    });
  }

  consume(instanceIds: readonly string[], rolloutId: number, step: number): Promise<void> {
    return this.#inTurn(async () => {
      if (instanceIds.length === 0) return;
      for (const id of instanceIds) this.#open.delete(id);
      await this.#ledger.consume(instanceIds, rolloutId, step);
    });
  }

  /** @param isFailure counts towards the bound on failed prompts. */
  drop(instanceIds: readonly string[], rolloutId: number, reason: string, isFailure: boolean): Promise<void> {
    return this.#inTurn(async () => {
      if (instanceIds.length === 0) return;
      for (const id of instanceIds) this.#open.delete(id);
      if (isFailure) this.#failed += instanceIds.length;
      await this.#ledger.drop(instanceIds, rolloutId, reason);
    });
  }

  snapshot(): Promise<DeskSnapshot> {
    return this.#inTurn(async () => ({
      cursor: this.#source.state(),
      ledger: this.#ledger.snapshot(),
      pending: [...this.#open.values()].sort((a, b) => a.groupIndex - b.groupIndex),
      failures: { failed: this.#failed, issued: this.#issued },
    }));
  }

  /** Everything as the manifest says; null: as before the first prompt. What was open then is handed out again first. */
  restore(manifest: Manifest | null): Promise<void> {
    return this.#inTurn(async () => {
      await this.#source.restore(manifest === null ? this.#origin : manifest.cursor);
      await this.#ledger.restore(manifest?.ledger ?? null, manifest?.name ?? null);
      this.#open.clear();
      for (const group of manifest?.pending ?? []) this.#open.set(group.instanceId, group);
      this.#returned = [...(manifest?.pending ?? [])];
      this.#failed = manifest?.failures.failed ?? 0;
      this.#issued = manifest?.failures.issued ?? 0;
    });
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const next = this.#queue.then(work, work);
    this.#queue = next.catch(() => {});
    return next;
  }
}

const ids = (groups: readonly PromptGroup[]): readonly string[] => groups.map((group) => group.instanceId);
