/**
 * Carries out what the reducer decides, and tells it what became of it. The only place where the loop meets the world.
 * S1 an event is in the journal before its commands begin; S2 nothing begun in an era writes anything after the era ended: a rollback
 * first aborts and awaits it; S3 every wait is watched: without progress for `stallMs` the run stops and says what it waited for.
 */
import { causeChain, invariant, type Random, SlimeError, sleep, type Timer } from "@slime/core";
import { type FinishedRollout, generateRollout } from "./generation.js";
import { type Journal, openJournal } from "./journal.js";
import type { CheckpointMark, LoopCommand, LoopEvent, LoopState } from "./loop-state.js";
import { decodeManifest, type Manifest } from "./manifest.js";
import type { FleetEvent, RunPorts, StoredCheckpoint } from "./ports.js";
import { PromptDesk } from "./prompt-desk.js";
import { reduce } from "./reducer.js";
import { type Era, PhaseDeadlines, type RunContext, spanned, trainerOp } from "./run-context.js";
import type { RunSettings } from "./run-settings.js";
import { type RunSummary, summaryOf } from "./run-summary.js";
import { isTrainerLoss } from "./trainer-failures.js";
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
/** Tries of bringing one restarted engine to the current weights before it is restarted again. */
export const catchUpTriesMax = 3;

/** Runs to the end. @throws what stopped the run: a SlimeError whose facts give the exit code, or the signal's reason. */
export async function runLoop(ports: RunPorts, settings: RunSettings, options: RunOptions): Promise<RunSummary> {
  const journal = await openJournal(ports.storage, settings.loop, ports);
  const shell = new RunShell(ports, settings, options, journal);
  try {
    return await shell.run();
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
  #doing = new Map<string, number>();
  #known: readonly (StoredCheckpoint & { readonly content: Manifest })[] = [];
  #progressMs: number;
  #watchdog: Timer | null = null;
  #error: unknown = null;
  #lastLoss: unknown = null;
  /** Starts come one after the other; one that was overtaken does nothing. */
  #starting: Promise<void> = Promise.resolve();
  #hasStarted = false;
  readonly #done: Promise<void>;
  #resolve: () => void = () => {};
  #reject: (reason: unknown) => void = () => {};

  constructor(ports: RunPorts, settings: RunSettings, options: RunOptions, journal: Journal) {
    this.#ports = ports;
    this.#settings = settings;
    this.#options = options;
    this.#journal = journal;
    this.#state = journal.replayed;
    this.#startedMs = ports.clock.nowMs();
    this.#progressMs = this.#startedMs;
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
      push: weightPush({ ...ports, pauseMode: settings.pauseMode, temperature: settings.temperature }),
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
      progressed: () => this.#progressed(),
      show: (now) => this.#show(now),
    };
  }

  async run(): Promise<RunSummary> {
    const { signal } = this.#options;
    signal?.throwIfAborted();
    const onAbort = () => this.#reject(signal?.reason);
    signal?.addEventListener("abort", onAbort, { once: true });
    using _subscription = this.#ports.fleet.subscribe((event) => this.#fleetEvent(event));
    try {
      const newest = await this.#newestCheckpoint();
      const mark = newest === null ? null : { name: newest.name, trained: newest.content.trained };
      const versionMax = Math.max(0, ...this.#known.map(({ content }) => content.weightVersion));
      this.#watch();
      this.#emit({ kind: "attempt.started", checkpoint: mark, versionMax });
      await this.#done;
      return summaryOf(this.#context, this.#state, this.#ports.clock.nowMs() - this.#startedMs, this.#known.at(-1)?.directory ?? null);
    } finally {
      signal?.removeEventListener("abort", onAbort);
      this.#watchdog?.cancel();
      await this.#endEra("the run ended");
    }
  }

  /** The newest checkpoint that is whole; damaged ones are passed over, and said. */
  async #newestCheckpoint(): Promise<(StoredCheckpoint & { readonly content: Manifest }) | null> {
    const own = await this.#ports.storage.checkpoints();
    const candidates = own.length > 0 || this.#options.load === undefined ? own : [this.#options.load];
    const whole: (StoredCheckpoint & { readonly content: Manifest })[] = [];
    let newest: (StoredCheckpoint & { readonly content: Manifest }) | null = null;
    for (const stored of [...candidates].reverse()) {
      try {
        const content = decodeManifest(stored.manifest, `${stored.directory}/manifest.json`);
        if (newest === null) await this.#options.verify(stored, content);
        newest ??= { ...stored, content };
        whole.unshift({ ...stored, content });
      } catch (error) {
        if (!SlimeError.is(error, "checkpoint.invalid")) throw error;
        this.#ports.log.error("checkpoint.invalid", { name: stored.name, reason: error.message, taken: "the one before it" });
      }
    }
    if (candidates.length > 0 && newest === null) {
      throw new SlimeError("checkpoint.invalid", "no checkpoint of this run is whole: start a new run directory, or restore one of them", {
        path: candidates.at(-1)?.directory ?? "",
        reason: "all are damaged",
      });
    }
    this.#known = whole;
    return newest;
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
      this.#progressed();
      const before = this.#state;
      const { state, commands } = reduce(this.#settings.loop, before, event);
      this.#state = state;
      if (event.kind === "saved") await this.#learnCheckpoint(event.checkpoint);
      // Whatever ended a job of the lane freed it; the next job may begin in this very turn.
      if (before.lane !== null && state.lane !== before.lane) this.#context.tally.laneIdleSinceMs = this.#ports.clock.nowMs();
      for (const command of commands) this.#carryOut(command);
    }
  }

  async #learnCheckpoint(mark: CheckpointMark): Promise<void> {
    const stored = (await this.#ports.storage.checkpoints()).find(({ name }) => name === mark.name);
    invariant(stored !== undefined, `checkpoint ${mark.name} was saved and is not there`);
    const content = decodeManifest(stored.manifest, `${stored.directory}/manifest.json`);
    this.#known = [...this.#known.filter(({ name }) => name !== mark.name), { ...stored, content }];
  }

  #carryOut(command: LoopCommand): void {
    switch (command.kind) {
      case "start":
        this.#starting = this.#starting
          .then(() => this.#start(command.era, command.checkpoint, command.reason))
          .catch((error: unknown) => this.#reject(error));
        return;
      case "generate":
        this.#begin(`generating rollout ${command.rolloutId}`, (era) => this.#generate(era, command.rolloutId));
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
    this.#doing.set(what, this.#ports.clock.nowMs());
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
        this.#doing.delete(what);
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
    this.#error = error;
    this.#ports.log.error("run.failed", { during: what, reason });
    this.#emit({ kind: "failed", code: SlimeError.isAny(error) ? error.code : "call.failed", message: reason });
  }

  /** Everything back to the checkpoint together, then trainer and engines up. */
  async #start(number: number, checkpoint: CheckpointMark | null, reason: string): Promise<void> {
    const { ports, desk, rollouts } = this.#context;
    await this.#endEra(reason);
    if (number !== this.#state.era) return;
    this.#era = this.#newEra(number);
    const isRollback = this.#hasStarted;
    this.#hasStarted = true;
    const from = this.#known.find(({ name }) => name === checkpoint?.name) ?? null;
    this.#begin(checkpoint === null ? "starting" : `resuming from ${checkpoint.name}`, async (era) => {
      if (isRollback) {
        ports.progress.done(`${reason}; back to ${checkpoint?.name ?? "the beginning"}`);
        await ports.trainer.reset(reason);
      }
      for (const { rolloutId, parts } of rollouts.values())
        await ports.rollouts
          .free(parts)
          .catch((error: unknown) => ports.log.warn("rollout.free.failed", { rolloutId, reason: causeChain(error).join(": ") }));
      rollouts.clear();
      await desk.restore(from?.content ?? null);
      const [info] = await Promise.all([
        trainerOp(this.#context, era, "start", era.opId("trainer.start"), (op) =>
          ports.trainer.start(op, { checkpoint: from?.directory ?? null }),
        ),
        trainerOp(this.#context, era, "start", era.opId("fleet.start"), (op) => ports.fleet.start(op)),
      ]);
      if (from !== null && info.step !== from.content.step) {
        throw new SlimeError(
          "checkpoint.invalid",
          `the trainer loaded step ${info.step} from ${from.directory}, its manifest says ${from.content.step}`,
          { path: from.directory, reason: "steps differ" },
        );
      }
      this.#context.tally.step = info.step;
      return { kind: "started", era: era.number };
    });
  }

  async #generate(era: Era, rolloutId: number): Promise<LoopEvent> {
    const { ports, desk, tally } = this.#context;
    const rollout: FinishedRollout = await spanned(this.#context, "generation", rolloutId, () =>
      generateRollout(
        { desk, rollouts: ports.rollouts, clock: ports.clock, random: this.#options.random, log: ports.log },
        this.#settings.generation,
        {
          rolloutId,
          opId: era.opId(`rollout.${rolloutId}`),
          groups: this.#settings.generation.groups,
          signal: era.signal,
          onProgress: (done, groups) => {
            this.#progressed();
            this.#show(`generating ${done}/${groups}`);
          },
        },
      ),
    );
    era.signal.throwIfAborted();
    this.#context.rollouts.set(rolloutId, rollout);
    tally.generatedTokens += rollout.generatedTokens;
    return { kind: "generated", era: era.number, rolloutId };
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

  #fleetEvent(event: FleetEvent): void {
    const { log } = this.#ports;
    switch (event.kind) {
      case "engine.died":
        log.warn("engine.died", { engine: event.engineId, reason: event.reason });
        this.#context.push.forget(event.url);
        return;
      case "engine.started":
        log.info("engine.started", { engine: event.engineId });
        if (this.#context.push.version() > 0) void this.#catchUp(event.engineId, event.url, 1);
        return;
      case "router.died":
        log.warn("router.died", { reason: event.reason });
        return;
      case "router.started":
        this.#context.push.reopen().catch((error: unknown) => log.error("router.reopen.failed", { reason: causeChain(error).join(": ") }));
        return;
      case "worker.died":
        log.warn("worker.died", { worker: event.worker, reason: event.reason });
        return;
      case "trainer.died":
        // While it starts, the start itself fails and says so.
        if (this.#state.phase === "running") this.#emit({ kind: "trainer.lost", era: this.#state.era, reason: event.reason });
        return;
    }
  }

  /** A restarted engine holds old weights: it gets the current ones, verified, before any request. */
  async #catchUp(engineId: string, url: string, tries: number): Promise<void> {
    const { push, ports, deadlines } = this.#context;
    try {
      await push.catchUp({ url, version: push.version(), timeoutMs: deadlines.timeoutMs("push") });
      ports.log.info("engine.caught_up", { engine: engineId, version: push.version() });
      this.#progressed();
    } catch (error) {
      const reason = causeChain(error).join(": ");
      ports.log.warn("engine.catch_up.failed", { engine: engineId, tries, reason });
      if (SlimeError.is(error, "engine.unavailable") || push.stateOf(url) === "quarantined") return;
      if (tries < catchUpTriesMax) await this.#catchUp(engineId, url, tries + 1);
      else await ports.fleet.restart(engineId, reason).catch(() => {});
    }
  }

  #progressed(): void {
    this.#progressMs = this.#ports.clock.nowMs();
  }

  /** S3. */
  #watch(): void {
    this.#watchdog = this.#ports.clock.after(this.#settings.stallMs / 4, () => {
      const now = this.#ports.clock.nowMs();
      const silentMs = now - this.#progressMs;
      if (silentMs < this.#settings.stallMs) {
        this.#watch();
        return;
      }
      const doing = [...this.#doing].map(([what, since]) => `${what} (${Math.round((now - since) / 1_000)} s)`);
      const what = doing.length > 0 ? doing.join(", ") : `nothing at all in phase ${this.#state.phase}`;
      this.#error = new SlimeError(
        "stalled",
        `no progress for ${Math.round(silentMs / 1_000)} s while ${what}: see the logs of who it waits for; the same command resumes the run (--stall-timeout sets this limit)`,
        { what, silentMs },
      );
      this.#reject(this.#error);
    });
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
