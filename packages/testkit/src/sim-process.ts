import type { Clock, Random, Timer } from "@slime/core";
import { nodeLimits } from "@slime/node/machine";
import type { HostedActor } from "@slime/rpc";
import { StartActor, type StartJob } from "@slime/rpc/control";
import { actorScript, driverScript } from "./script.js";

/** How a process ended, as its exit file says it; nulls: the machine went down and nobody knows. */
export interface ProcessEnd {
  readonly exitCode: number | null;
  readonly signal: string | null;
}

/** What a host says to the daemon of its machine, when there is one. */
export interface DaemonPort {
  readonly registered: (process: SimProcess) => void;
  readonly alive: (process: SimProcess, incarnation: number) => void;
  readonly failed: (process: SimProcess) => void;
  readonly leaving: (process: SimProcess, reason: "shutdown" | "orphaned") => void;
}

/** What a process begins as: a host of the pool, an actor's host, or a job's driver. */
export interface SimProcessSpec {
  readonly processId: string;
  readonly kind: "host" | "driver";
  readonly pid: number;
  readonly actor: StartActor | null;
  readonly job: StartJob | null;
}

export interface ProcessWorld {
  readonly clock: Clock;
  readonly random: Random;
  /** The machine's daemon, while one lives and listens. */
  readonly daemon: () => DaemonPort | null;
  /** It belongs to an actor from here on. */
  readonly onOccupied: (process: SimProcess) => void;
  readonly onExit: (process: SimProcess, end: ProcessEnd) => void;
}

const retryMs = 500;
const orphanExitCode = 75;

/** A host or a driver in memory. It lives on without its daemon, as real ones do, and follows its script. */
export class SimProcess {
  readonly processId: string;
  readonly kind: "host" | "driver";
  readonly pid: number;
  living = true;
  /** Whose it is; null for a pooled host and for drivers. */
  actor: StartActor | null = null;
  job: StartJob | null = null;
  phase: "idle" | "constructing" | "alive" | "ending" = "idle";
  readonly #world: ProcessWorld;
  readonly #timers = new Set<Timer>();
  #toldAtMs: number;
  #aliveOnce = false;

  constructor(world: ProcessWorld, of: SimProcessSpec) {
    this.#world = world;
    this.processId = of.processId;
    this.kind = of.kind;
    this.pid = of.pid;
    this.job = of.job;
    this.#toldAtMs = world.clock.nowMs();
    if (of.actor !== null) this.#occupy(of.actor);
    if (of.job !== null) this.#drive(of.job);
    else this.#after(20 + 60 * world.random.unit(), () => this.connect());
  }

  /** What it says it hosts. */
  hosted(): HostedActor | null {
    const spec = this.actor?.spec;
    if (spec === undefined || this.actor === null || this.phase === "idle") return null;
    const state = this.phase === "alive" || this.#aliveOnce ? "alive" : "constructing";
    return {
      actorId: spec.actorId,
      incarnation: this.actor.incarnation,
      jobId: spec.jobId,
      state: this.phase === "ending" ? "ending" : state,
      socketPath: this.#socket(),
    };
  }

  /** The daemon says whose it is. Said again, it changes nothing. */
  assign(start: StartActor): void {
    if (!this.living || this.phase !== "idle") return;
    if (this.actor === null) this.#occupy(start);
    this.phase = "constructing";
    const script = actorScript(start.spec?.exportName ?? "steady");
    if (script.neverReady) return;
    this.#after(script.constructMs, () => {
      if (script.fails) {
        this.phase = "ending";
        this.#world.daemon()?.failed(this);
        return this.#after(20, () => this.exit({ exitCode: 1, signal: null }));
      }
      this.phase = "alive";
      this.#aliveOnce = true;
      this.#world.daemon()?.alive(this, start.incarnation);
      if (script.diesAfterMs !== null) this.#after(script.diesAfterMs, () => this.exit({ exitCode: 1, signal: null }));
    });
  }

  /** The daemon asks it to end. */
  shutdown(): void {
    if (!this.living || this.phase === "ending" || this.#stubborn()) return;
    this.phase = "ending";
    this.#world.daemon()?.leaving(this, "shutdown");
    this.#after(10 + 50 * this.#world.random.unit(), () => this.exit({ exitCode: 0, signal: null }));
  }

  terminate(): void {
    if (!this.#stubborn()) this.#after(10, () => this.exit({ exitCode: null, signal: "SIGTERM" }));
  }

  kill(): void {
    this.exit({ exitCode: null, signal: "SIGKILL" });
  }

  exit(end: ProcessEnd): void {
    if (!this.living) return;
    this.living = false;
    for (const timer of this.#timers) timer.cancel();
    this.#timers.clear();
    this.#world.onExit(this, end);
  }

  /** Finds the machine's daemon, again and again; past the orphan grace it ends itself. */
  connect(): void {
    if (!this.living || this.kind === "driver") return;
    const daemon = this.#world.daemon();
    const nowMs = this.#world.clock.nowMs();
    if (daemon !== null) {
      this.#toldAtMs = nowMs;
      return daemon.registered(this);
    }
    if (nowMs - this.#toldAtMs > nodeLimits.orphanGraceMs) return this.exit({ exitCode: orphanExitCode, signal: null });
    this.#after(retryMs, () => this.connect());
  }

  /** Its connection to the daemon is gone. */
  disconnected(): void {
    this.#toldAtMs = this.#world.clock.nowMs();
    this.#after(retryMs, () => this.connect());
  }

  #occupy(start: StartActor): void {
    this.actor = StartActor.decode(StartActor.encode(start).finish());
    this.#world.onOccupied(this);
  }

  #drive(job: StartJob): void {
    this.phase = "alive";
    const script = driverScript(job.spec?.entrypoint ?? "runs");
    if (script.endsAfterMs !== null) this.#after(script.endsAfterMs, () => this.exit({ exitCode: script.exitCode, signal: null }));
  }

  #stubborn(): boolean {
    return this.kind === "driver"
      ? driverScript(this.job?.spec?.entrypoint ?? "runs").stubborn
      : actorScript(this.actor?.spec?.exportName ?? "steady").stubborn;
  }

  #socket(): string {
    return this.phase === "alive" ? `a-${this.actor?.spec?.actorId ?? ""}-${this.actor?.incarnation ?? 0}.sock` : "";
  }

  #after(ms: number, run: () => void): void {
    const timer = this.#world.clock.after(ms, () => {
      this.#timers.delete(timer);
      if (this.living) run();
    });
    this.#timers.add(timer);
  }
}
