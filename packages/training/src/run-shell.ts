/**
 * Carries out what the reducer decides, and tells it what became of it. The only place where the loop meets the world.
 * S1 an event is in the journal before its commands begin; S2 nothing begun in an era writes anything after the era ended: a rollback
 * first aborts and awaits it; S3 every wait is watched: without progress for `stallMs` the run stops and says what it waited for.
 */
import { causeChain, type Random, reasonOf, SlimeError, sleep } from "@slime/core";
import { fleetWatch } from "./fleet-watch.js";
import { generationJob, startJob } from "./generation-lane.js";
import { type Journal, openJournal } from "./journal.js";
import { KnownCheckpoints } from "./known-checkpoints.js";
import type { CheckpointMark, LoopCommand, LoopEvent, LoopState } from "./loop-state.js";
import type { Manifest } from "./manifest.js";
import type { RunPorts } from "./ports.js";
import { PromptDesk } from "./prompt-desk.js";
import { reduce } from "./reducer.js";
import { type Era, PhaseDeadlines, type RunContext } from "./run-context.js";
import type { StoredCheckpoint } from "./run-records.js";
import type { RunSettings } from "./run-settings.js";
import { type RunSummary, summaryOf } from "./run-summary.js";
import { StallWatch } from "./stall-watch.js";
import { isTrainerLoss, ownFailure } from "./trainer-failures.js";
import { laneJob } from "./trainer-lane.js";
import { weightPush } from "./weight-push.js";

export interface RunOptions {
  readonly random: Random;
  /** Stops the run; what is durable stays, and the same command resumes. */
  readonly signal?: AbortSignal | undefined;
  /** A checkpoint of another run to begin from (`--load`), when this run has none of its own. */
  readonly load?: StoredCheckpoint | undefined;
  /** Checks a checkpoint's files before it is resumed from. @throws `checkpoint.invalid` */
  readonly verify: (checkpoint: StoredCheckpoint, manifest: Manifest) => Promise<void>;
}

/** How long a rollback waits for what it aborted. */
export const settleMsMax = 30_000;

/** Runs to the end. @throws what stopped the run: a SlimeError whose facts give the exit code, or the signal's reason. */
export async function runLoop(ports: RunPorts, settings: RunSettings, options: RunOptions): Promise<RunSummary> {
  const journal = await openJournal(ports.storage, settings.loop, ports);
  try {
    const checkpoints = await KnownCheckpoints.find({ storage: ports.storage, log: ports.log, load: options.load, verify: options.verify });
    return await new RunShell(ports, settings, options, { journal, checkpoints }).run();
  } finally {
    await journal.close();
  }
}

interface LiveEra extends Era {
  readonly controller: AbortController;
}

class RunShell {
  readonly #ports: RunPorts;
  readonly #settings: RunSettings;
  readonly #options: RunOptions;
  readonly #journal: Journal;
  readonly #context: RunContext;
  readonly #events: LoopEvent[] = [];
  readonly #startedMs: number;
  #state: LoopState;
  #pumping = false;
  #era: LiveEra;
  /** What the current era began and has not ended. */
  #running = new Set<Promise<unknown>>();
  readonly #checkpoints: KnownCheckpoints;
  readonly #stall: StallWatch;
  #error: unknown = null;
  #lastLoss: unknown = null;
  /** Starts come one after the other; one that was overtaken does nothing. */
  #starting: Promise<void> = Promise.resolve();
  #hasStarted = false;
  readonly #done: Promise<void>;
  #resolve: () => void = () => {};
  #reject: (reason: unknown) => void = () => {};

  constructor(
    ports: RunPorts,
    settings: RunSettings,
    options: RunOptions,
    past: { readonly journal: Journal; readonly checkpoints: KnownCheckpoints },
  ) {
    this.#ports = ports;
    this.#settings = settings;
    this.#options = options;
    this.#journal = past.journal;
    this.#checkpoints = past.checkpoints;
    this.#state = past.journal.replayed;
    this.#stall = new StallWatch(ports.clock, settings.stallMs);
    this.#startedMs = ports.clock.nowMs();
    this.#era = this.#newEra(this.#state.era);
    this.#done = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
    this.#done.catch(() => {});
    this.#context = {
      ports,
      settings,
      random: options.random,
      desk: new PromptDesk(ports.source, ports.ledger),
      push: weightPush({
        ...ports,
        pauseMode: settings.pauseMode,
        temperature: settings.temperature,
        canaryTolerance: settings.canaryTolerance,
      }),
      rollouts: new Map(),
      deadlines: new PhaseDeadlines(),
      tally: {
        spans: [],
        evals: [],
        generatedTokens: 0,
        trainedTokens: 0,
        step: 0,
        lagMax: 0,
        reward: null,
        loss: null,
        laneIdleSinceMs: this.#startedMs,
      },
      progressed: () => this.#stall.progressed(),
      show: (now) => this.#show(now),
    };
  }

  async run(): Promise<RunSummary> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    const onAbort = () => this.#reject(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    // While the trainer starts, the start itself fails and says so.
    const onTrainerDeath = (reason: string) => {
      if (this.#state.phase === "running") this.#emit({ kind: "trainer.lost", era: this.#state.era, reason });
    };
    using _subscription = this.#ports.fleet.subscribe(fleetWatch(this.#context, onTrainerDeath));
    try {
      const { newest, versionMax } = this.#checkpoints;
      this.#stall.start((error) => {
        this.#error = error;
        this.#reject(error);
      });
      this.#sayAttempt();
      this.#emit({ kind: "attempt.started", checkpoint: newest && { name: newest.name, trained: newest.content.trained }, versionMax });
      await this.#done;
      return summaryOf(
        this.#context,
        this.#state,
        this.#ports.clock.nowMs() - this.#startedMs,
        this.#checkpoints.newest?.directory ?? null,
      );
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#stall.stop();
      await this.#endEra("the run ended");
    }
  }

  /** From where this attempt goes on; a new run begins without a word. */
  #sayAttempt(): void {
    const attempt = this.#state.attempt + 1;
    const from = this.#checkpoints.newest;
    if (attempt === 1 && from === null) return;
    const what =
      from === null
        ? "no checkpoint was written yet: starts anew"
        : `${attempt === 1 ? "begins" : "resumes"} at rollout ${from.content.trained} from ${from.directory}`;
    this.#ports.progress.done(`attempt ${attempt}: ${what}`);
  }

  #emit(event: LoopEvent): void {
    this.#events.push(event);
    if (this.#pumping) return;
    this.#pumping = true;
    this.#pump()
      .catch((error: unknown) => this.#reject(error))
      .finally(() => {
        this.#pumping = false;
      });
  }

  async #pump(): Promise<void> {
    for (let event = this.#events.shift(); event !== undefined; event = this.#events.shift()) {
      if ("era" in event && event.era !== this.#state.era) continue;
      await this.#journal.append(event);
      this.#stall.progressed();
      const before = this.#state;
      const { state, commands } = reduce(this.#settings.loop, before, event);
      this.#state = state;
      if (event.kind === "saved") await this.#checkpoints.learn(event.checkpoint);
      // Whatever ended a job of the lane freed it; the next job may begin in this very turn.
      if (before.lane !== null && state.lane !== before.lane) this.#context.tally.laneIdleSinceMs = this.#ports.clock.nowMs();
      for (const command of commands) this.#carryOut(command);
    }
  }

  #carryOut(command: LoopCommand): void {
    switch (command.kind) {
      case "start":
        this.#starting = this.#starting
          .then(() => this.#start(command.era, command.checkpoint, command.reason))
          .catch((error: unknown) => this.#reject(error));
        return;
      case "generate":
        this.#begin(`generating rollout ${command.rolloutId}`, (era) => generationJob(this.#context, era, command.rolloutId));
        return;
      case "lane": {
        const { job } = command;
        const state = this.#state;
        const what = job.kind === "push" ? `pushing weight version ${job.version}` : `${job.kind} of rollout ${job.rolloutId}`;
        this.#begin(what, (era) => laneJob(this.#context, era, state, job));
        return;
      }
      case "finish":
        this.#resolve();
        return;
      case "fail":
        this.#reject(
          this.#error ??
            new SlimeError("gang.rank_failed", command.failure.message, { op: "trainer", failedRanks: [] }, { cause: this.#lastLoss }),
        );
        return;
    }
  }

  /** Starts a piece of the era's work; its end becomes an event, unless the era is over. */
  #begin(what: string, work: (era: Era) => Promise<LoopEvent>): void {
    const era = this.#era;
    this.#stall.began(what);
    const running = work(era)
      .then(
        (event) => {
          if (!era.signal.aborted) this.#emit(event);
        },
        (error: unknown) => {
          if (!era.signal.aborted) this.#failed(era, what, error);
        },
      )
      .finally(() => {
        this.#running.delete(running);
        this.#stall.ended(what);
      });
    this.#running.add(running);
  }

  #failed(era: Era, what: string, error: unknown): void {
    const reason = causeChain(error).join(": ");
    if (isTrainerLoss(error) && !what.startsWith("generating")) {
      this.#lastLoss = error;
      this.#ports.log.warn("trainer.lost", { during: what, reason });
      this.#emit({ kind: "trainer.lost", era: era.number, reason });
      return;
    }
    this.#error = ownFailure(error);
    this.#ports.log.error("run.failed", { during: what, reason });
    this.#emit({ kind: "failed", code: SlimeError.isAny(error) ? error.code : "call.failed", message: reasonOf(error) });
  }

  /** Everything back to the checkpoint together, then trainer and engines up. */
  async #start(number: number, checkpoint: CheckpointMark | null, reason: string): Promise<void> {
    await this.#endEra(reason);
    if (number !== this.#state.era) return;
    this.#era = this.#newEra(number);
    const isRollback = this.#hasStarted;
    this.#hasStarted = true;
    const from = this.#checkpoints.named(checkpoint?.name ?? null);
    this.#begin(checkpoint === null ? "starting" : `resuming from ${checkpoint.name}`, (era) =>
      startJob(this.#context, era, from, isRollback ? reason : null),
    );
  }

  #newEra(number: number): LiveEra {
    const controller = new AbortController();
    return { number, controller, signal: controller.signal, opId: (what) => `${this.#settings.runId}.e${number}.${what}` };
  }

  /** S2. What does not settle in time is left behind: its ports' answers are ignored, and it writes nothing after its signal. */
  async #endEra(reason: string): Promise<void> {
    const running = [...this.#running];
    this.#era.controller.abort(new SlimeError("call.cancelled", reason, { what: "era" }));
    if (running.length === 0) return;
    await this.#ports.rollouts
      .abort()
      .catch((error: unknown) => this.#ports.log.warn("rollouts.abort.failed", { reason: causeChain(error).join(": ") }));
    const given = new AbortController();
    await Promise.race([Promise.allSettled(running), sleep(this.#ports.clock, settleMsMax, given.signal).catch(() => {})]);
    given.abort();
  }

  #show(now: string): void {
    const { tally } = this.#context;
    const state = this.#state;
    const parts = [`rollout ${state.trained}/${this.#settings.loop.rollouts}`, now, `v${state.version}`];
    if (tally.reward !== null) parts.push(`reward ${tally.reward.toFixed(3)}`);
    if (tally.loss !== null) parts.push(`loss ${tally.loss.toFixed(4)}`);
    if (state.waiting.length > 0) parts.push(`${state.waiting.length} waiting`);
    this.#ports.progress.update(parts.join(" · "));
  }
}
