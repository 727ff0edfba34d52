import { invariant, type Logger, SlimeError } from "@slime/core";
import type { CheckpointMark } from "./loop-state.js";
import { decodeManifest, type Manifest } from "./manifest.js";
import type { RunStorage, StoredCheckpoint } from "./run-records.js";

/** A checkpoint whose manifest was read and matches its digest. */
export type KnownCheckpoint = StoredCheckpoint & { readonly content: Manifest };

export interface CheckpointSearch {
  readonly storage: RunStorage;
  readonly log: Logger;
  /** From `--load`; looked at only when the run has none of its own. */
  readonly load: StoredCheckpoint | undefined;
  /** Checks a checkpoint's files. @throws `checkpoint.invalid` */
  readonly verify: (checkpoint: StoredCheckpoint, manifest: Manifest) => Promise<void>;
}

/** The checkpoints a run may go back to, oldest first. */
export class KnownCheckpoints {
  readonly #storage: RunStorage;
  #known: readonly KnownCheckpoint[];

  private constructor(storage: RunStorage, known: readonly KnownCheckpoint[]) {
    this.#storage = storage;
    this.#known = known;
  }

  /**
   * Reads what is there. The newest is one whose files were checked; damaged ones after it are passed over, and said.
   * @throws `checkpoint.invalid` when there are checkpoints and none is whole.
   */
  static async find({ storage, log, load, verify }: CheckpointSearch): Promise<KnownCheckpoints> {
    const own = await storage.checkpoints();
    const candidates = own.length > 0 || load === undefined ? own : [load];
    const whole: KnownCheckpoint[] = [];
    for (const stored of [...candidates].reverse()) {
      try {
        const content = decodeManifest(stored.manifest, `${stored.directory}/manifest.json`);
        if (whole.length === 0) await verify(stored, content);
        whole.unshift({ ...stored, content });
      } catch (error) {
        if (!SlimeError.is(error, "checkpoint.invalid")) throw error;
        log.error("checkpoint.invalid", { name: stored.name, reason: error.message, taken: "the one before it" });
      }
    }
    const last = candidates.at(-1);
    if (last !== undefined && whole.length === 0) {
      throw new SlimeError("checkpoint.invalid", "no checkpoint of this run is whole: start a new run directory, or restore one of them", {
        path: last.directory,
        reason: "all are damaged",
      });
    }
    return new KnownCheckpoints(storage, whole);
  }

  get newest(): KnownCheckpoint | null {
    return this.#known.at(-1) ?? null;
  }

  /** The highest weight version that any of them knows to have been begun. */
  get versionMax(): number {
    return Math.max(0, ...this.#known.map(({ content }) => content.weightVersion));
  }

  named(name: string | null): KnownCheckpoint | null {
    return this.#known.find((checkpoint) => checkpoint.name === name) ?? null;
  }

  /** A checkpoint was written just now. */
  async learn(mark: CheckpointMark): Promise<void> {
    const stored = (await this.#storage.checkpoints()).find(({ name }) => name === mark.name);
    invariant(stored !== undefined, `checkpoint ${mark.name} was saved and is not there`);
    const content = decodeManifest(stored.manifest, `${stored.directory}/manifest.json`);
    this.#known = [...this.#known.filter(({ name }) => name !== mark.name), { ...stored, content }];
  }
}
