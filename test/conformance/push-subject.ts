import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Engine, ExportedWeights, Op, Trainer } from "@slime/backend";
import { PushStage, same, scoreTokens, type WeightSyncOptions, type WeightSyncSubject } from "@slime/backend/conformance";
import { SlimeError, silentLogger } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import { weightPush } from "@slime/training";

/** A trainer that can be broken, as a push's subject needs it. */
export interface PushTrainer {
  readonly trainer: Trainer;
  readonly train: (op: Op) => Promise<void>;
  readonly breakExport: () => void;
  /** What the ranks wrote, as the one file that engines take. */
  readonly merge: (parts: readonly ExportedWeights[], version: number) => Promise<ExportedWeights>;
  readonly close: () => Promise<void>;
}

/** What differs between backends. */
export interface PushBackend {
  readonly longTokens: number;
  readonly logProbDifferenceMax: number;
  /** @param load a checkpoint, or null for the initial weights. */
  readonly startTrainer: (folder: string, load: string | null) => Promise<PushTrainer>;
  /** @param url of the engine whose place it takes, or null. */
  readonly startEngine: (id: string, url: string | null) => Promise<{ readonly engine: Engine; readonly close: () => Promise<void> }>;
}

let ops = 0;
/** An operation of the tests' own. A gang may serve several subjects, so no id comes twice. */
export const op = (): Op => ({ opId: `own-${ops++}`, timeoutMs: 30_000 });

/** `weightPush` between a trainer of this backend and two of its engines. */
export async function pushSubject(backend: PushBackend, options: WeightSyncOptions): Promise<WeightSyncSubject> {
  const folder = await mkdtemp(join(tmpdir(), "slime-push-"));
  const stage = new PushStage();
  const clock = virtualClock();
  let current = await backend.startTrainer(folder, null);
  let saved: string | null = null;

  const closers = new Map<string, () => Promise<void>>();
  const startEngine = async (id: string): Promise<Engine> => {
    const close = closers.get(id);
    await close?.();
    const started = await backend.startEngine(id, close === undefined ? null : stage.url(id));
    closers.set(id, started.close);
    return started.engine;
  };
  for (const id of ["a", "b"]) stage.put(id, await startEngine(id));

  const sync = weightPush({
    fleet: {
      ...stage,
      list: stage.list,
      fence: stage.fence,
      restart: stage.restart,
      start: async () => {},
      subscribe: () => ({ [Symbol.dispose]() {} }),
    },
    trainer: {
      async exportWeights(asked, { version }) {
        const answers = await current.trainer.exportWeights(asked, same({ version, directory: folder }));
        return current.merge(
          answers.flatMap(({ value }) => (value === null ? [] : [value])),
          version,
        );
      },
      probe: (asked, { tokens }) => scoreTokens(current.trainer, asked, tokens),
    },
    pauseMode: options.pauseMode,
    canaryTokens: options.canary ? [3, 4, 5, 6] : null,
    temperature: 1,
    canaryTolerance: 0.01,
    clock,
    log: silentLogger,
  });

  return {
    sync,
    stage,
    forget: sync.forget,
    pass: clock.advance,
    longTokens: backend.longTokens,
    logProbDifferenceMax: backend.logProbDifferenceMax,
    train: () => current.train(op()),
    trainerLogProbs: (tokens) => scoreTokens(current.trainer, op(), tokens),
    async breakExport() {
      saved = await mkdtemp(join(folder, "saved-"));
      await current.trainer.save(op(), same({ directory: saved, rolloutId: 0 }));
      current.breakExport();
    },
    async reviveTrainer() {
      await current.close();
      current = await backend.startTrainer(folder, saved);
    },
    startEngine,
    async [Symbol.asyncDispose]() {
      for (const close of closers.values()) await close();
      await current.close();
      await rm(folder, { recursive: true, force: true });
    },
  };
}

/** What a rank says that died while it wrote. */
export function died(what: string): SlimeError {
  return new SlimeError("process.exited", `${what} ended with exit code 9`, { what, exitCode: 9, signal: null });
}
