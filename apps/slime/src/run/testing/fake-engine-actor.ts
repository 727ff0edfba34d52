import type { DeathRecord } from "@slime/core";
import { SlimeError } from "@slime/core";
import type { ActorHandle, ActorStatus } from "@slime/runtime";
import type { EngineNews, EngineStart } from "../../actors/engine-protocol.js";
import type { RolloutEngine } from "../../actors/rollout-engine.js";

/** An engine's actor without a process: it notes what it is asked and dies, comes back and speaks when told. */
export class FakeEngineActor {
  readonly calls: string[] = [];
  /** What the next calls of a method fail with. */
  readonly failures = new Map<string, unknown>();
  plans: EngineStart[] = [];
  #status: ActorStatus = {
    actorId: "actor_0",
    className: "RolloutEngine",
    name: "engine-0",
    state: "ALIVE",
    incarnation: 1,
    restarts: 0,
    nodeId: "node_0",
    pid: 1,
    waiting: [],
    death: null,
  };
  readonly #listeners = new Set<(status: ActorStatus) => void>();
  #watchers: { readonly resolve: (news: EngineNews) => void; readonly reject: (reason: unknown) => void }[] = [];
  readonly #name: string;

  constructor(name: string) {
    this.#name = name;
  }

  /** As the handle of a real one; every method takes `.options()`. */
  get handle(): ActorHandle<RolloutEngine> {
    const method = (name: string, run: (...args: never[]) => unknown) => {
      const call = async (...args: never[]) => {
        this.calls.push(name);
        const failure = this.failures.get(name);
        if (failure !== undefined) throw failure;
        return run(...args);
      };
      return Object.assign(call, { options: () => call, send: call });
    };
    const life = () => this.#status.incarnation;
    const handle = {
      actorId: "actor_0",
      state: () => this.#status,
      ready: async () => {},
      onStateChange: (listener: (status: ActorStatus) => void) => {
        this.#listeners.add(listener);
        return () => this.#listeners.delete(listener);
      },
      start: method("start", (plan: EngineStart) => {
        this.plans.push(plan);
        return { url: `http://${this.#name}.${life()}`, pid: 1, bootstrapPort: null };
      }),
      meetingPoint: method("meetingPoint", (address: string) => `${address}:9`),
      watch: () => {
        const watch = () => new Promise<EngineNews>((resolve, reject) => this.#watchers.push({ resolve, reject }));
        return watch();
      },
      crash: method("crash", (of: number) => {
        if (of === life()) this.die("crashed");
      }),
      pause: method("pause", () => undefined),
    };
    return Object.assign(handle, {
      watch: Object.assign(handle.watch, { options: () => handle.watch }),
    }) as unknown as ActorHandle<RolloutEngine>;
  }

  say(news: EngineNews): void {
    for (const { resolve } of this.#watchers.splice(0)) resolve(news);
  }

  die(reason: string): void {
    const death: DeathRecord = {
      reason: "WORKER_DIED",
      message: reason,
      pid: 1,
      exitCode: null,
      signal: "SIGKILL",
      oom: false,
      stderrTail: [],
      nodeId: "node_0",
      atMs: 0,
    };
    this.#change({ state: "RESTARTING", death });
    const gone = new SlimeError("actor.unavailable", "it died", { actorId: "actor_0", incarnation: this.#status.incarnation, reason });
    for (const { reject } of this.#watchers.splice(0)) reject(gone);
  }

  comeBack(): void {
    this.#change({ state: "ALIVE", incarnation: this.#status.incarnation + 1 });
  }

  #change(change: Partial<ActorStatus>): void {
    this.#status = { ...this.#status, ...change };
    for (const listener of [...this.#listeners]) listener(this.#status);
  }
}
