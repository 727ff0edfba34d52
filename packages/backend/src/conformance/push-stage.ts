import { readFile, writeFile } from "node:fs/promises";
import { invariant, SlimeError } from "@slime/core";
import type { Engine, GenerateRequest, GenerateResult, WeightReceipt, WeightUpdate } from "../engine.js";
import type { Fence } from "../weight-sync.js";

/**
 * What an engine does wrong, once, at its next update. `refuse`: it does not take it; `die`: it is gone, half of it taken; `corrupt`: a bit
 * turned on the way; `lie`: it reports another checksum; `stale`: it reports the version before; `drift`: it says all is well and
 * serves other numbers; `hold`: it says nothing until it is released.
 */
export type PushFault = "refuse" | "die" | "corrupt" | "lie" | "stale" | "drift" | "hold";

/** How a held update goes on: as one that was slow; or, once its engine is gone, with an answer or a broken connection that come late. */
export type Release = "goes on" | "answers late" | "breaks late";

export type PushStep = "away" | "closing" | "fenced" | "pause" | "flush" | "receive" | "received" | "failed" | "resume" | "open";

export interface PushEvent {
  readonly id: string;
  readonly step: PushStep;
}

/** An engine as a push reaches it; the shape of the loop's own handles. */
export interface StagedHandle {
  readonly id: string;
  readonly url: string;
  readonly engine: Engine;
}

interface Actor {
  readonly id: string;
  /** What the suite itself asks, past fence and faults. */
  bare: Engine;
  engine: StagedEngine;
}

/**
 * The world around a push: engines that go wrong when told, a fence that is a real gate, and a record of every step in its order.
 * Each implementation of `WeightSync` is run against one of these.
 */
export class PushStage {
  readonly events: PushEvent[] = [];
  /** Ids of engines that the sync gave up, in order. */
  readonly restarts: string[] = [];
  readonly fence: Fence;
  /** While true, whoever keeps the fences cannot be reached. */
  fenceAway = false;
  readonly #actors: Actor[] = [];
  readonly #opened = new Map<string, number>();
  readonly #fenceHolds = new Map<string, Promise<void>>();
  #waiters: { readonly holds: () => boolean; readonly resolve: () => void }[] = [];

  constructor() {
    this.fence = {
      close: async (url) => {
        const { id } = this.#at(url);
        this.#reach(id);
        this.#opened.delete(url);
        this.record(id, "closing");
        await this.#fenceHolds.get(id);
        this.record(id, "fenced");
      },
      open: async (url, version) => {
        const { id } = this.#at(url);
        this.#reach(id);
        this.#opened.set(url, version);
        this.record(id, "open");
      },
    };
  }

  /** Puts an engine on stage, in the place of the one of this id if there was one. Its fence is closed, as for any that (re)starts. */
  put(id: string, bare: Engine): void {
    const engine = new StagedEngine(id, bare, this);
    const known = this.#actors.find((actor) => actor.id === id);
    if (known === undefined) this.#actors.push({ id, bare, engine });
    else Object.assign(known, { bare, engine });
    this.#opened.delete(bare.url);
  }

  readonly list = (): readonly StagedHandle[] => this.#actors.map(({ id, engine }) => ({ id, url: engine.url, engine }));

  readonly restart = async (id: string): Promise<void> => {
    this.restarts.push(id);
  };

  /** The version at which the fence lets requests through to this engine; null: it does not. */
  opened(id: string): number | null {
    return this.#opened.get(this.bare(id).url) ?? null;
  }

  url(id: string): string {
    return this.bare(id).url;
  }

  bare(id: string): Engine {
    return this.#named(id).bare;
  }

  plan(id: string, fault: PushFault): void {
    this.#named(id).engine.fault = fault;
  }

  /** Ends the hold of the engine that is on stage now, also after another has taken its place. */
  releaser(id: string): (how: Release) => void {
    const { engine } = this.#named(id);
    return (how) => engine.release(how);
  }

  /** From now on this engine's fence takes until the returned call to close, as one that waits for requests on their way. */
  holdFence(id: string): () => void {
    let release: () => void = () => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    this.#fenceHolds.set(id, held);
    return () => {
      this.#fenceHolds.delete(id);
      release();
    };
  }

  #reach(id: string): void {
    if (!this.fenceAway) return;
    this.record(id, "away");
    throw new SlimeError("engine.unavailable", "the router is away", { engine: "router", reason: "ECONNREFUSED" });
  }

  steps(id: string): readonly PushStep[] {
    return this.events.flatMap((event) => (event.id === id ? [event.step] : []));
  }

  /** A request as a router sends it: it waits until the fence is open. */
  async through(id: string, request: GenerateRequest): Promise<GenerateResult> {
    await this.until(() => this.opened(id) !== null);
    return this.bare(id).generate(request, { timeoutMs: 30_000 });
  }

  /** Resolves once `holds`; asked again at every step. */
  until(holds: () => boolean): Promise<void> {
    if (holds()) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push({ holds, resolve }));
  }

  record(id: string, step: PushStep): void {
    this.events.push({ id, step });
    const due = this.#waiters.filter(({ holds }) => holds());
    this.#waiters = this.#waiters.filter((waiter) => !due.includes(waiter));
    for (const { resolve } of due) resolve();
  }

  #named(id: string): Actor {
    const actor = this.#actors.find((each) => each.id === id);
    invariant(actor !== undefined, `engine ${id} is on stage`);
    return actor;
  }

  #at(url: string): Actor {
    const actor = this.#actors.find((each) => each.bare.url === url);
    invariant(actor !== undefined, `the fence knows ${url}`);
    return actor;
  }
}

/** An engine whose steps are recorded and whose next update may go wrong. */
class StagedEngine implements Engine {
  readonly url: string;
  fault: PushFault | null = null;
  readonly #id: string;
  readonly #engine: Engine;
  readonly #stage: PushStage;
  #dead = false;
  #drifts = false;
  release: (how: Release) => void = () => {};

  constructor(id: string, engine: Engine, stage: PushStage) {
    this.#id = id;
    this.url = engine.url;
    this.#engine = engine;
    this.#stage = stage;
  }

  readonly generate: Engine["generate"] = async (request, options) => {
    const result = await this.#alive().generate(request, options);
    if (!this.#drifts) return result;
    return { ...result, inputLogProbs: result.inputLogProbs.map((logProb) => (logProb === null ? null : logProb - 0.5)) };
  };
  readonly health = (timeoutMs: number) => this.#alive().health(timeoutMs);
  readonly info = () => this.#alive().info();
  readonly load = () => this.#alive().load();
  readonly abort: Engine["abort"] = (target) => this.#alive().abort(target);
  readonly close = () => this.#engine.close();

  readonly pause: Engine["pause"] = async (mode) => {
    this.#stage.record(this.#id, "pause");
    await this.#alive().pause(mode);
  };

  readonly resume = async (): Promise<void> => {
    this.#stage.record(this.#id, "resume");
    await this.#alive().resume();
  };

  readonly flush = async (): Promise<void> => {
    this.#stage.record(this.#id, "flush");
    await this.#alive().flush();
  };

  readonly updateWeights = async (update: WeightUpdate): Promise<WeightReceipt> => {
    const { fault } = this;
    this.fault = null;
    const held = new Promise<Release>((resolve) => {
      this.release = resolve;
    });
    this.#stage.record(this.#id, "receive");
    try {
      const receipt = await this.#receive(update, fault, fault === "hold" ? await held : "goes on");
      this.#stage.record(this.#id, "received");
      return receipt;
    } catch (error) {
      this.#stage.record(this.#id, "failed");
      throw error;
    }
  };

  async #receive(update: WeightUpdate, fault: PushFault | null, release: Release): Promise<WeightReceipt> {
    const version = String(update.version);
    if (release === "answers late") return { version, checksum: update.source.kind === "directory" ? null : update.source.checksum };
    if (fault === "refuse")
      throw new SlimeError("engine.refused", `${this.url} takes no weights`, { engine: this.url, status: 400, reason: "asked to refuse" });
    this.#dead = fault === "die" || release === "breaks late";
    const receipt = await this.#alive().updateWeights(fault === "corrupt" ? await corrupted(update) : update);
    this.#drifts = fault === "drift";
    if (fault === "lie") return { ...receipt, checksum: "0".repeat(16) };
    return fault === "stale" ? { ...receipt, version: String(update.version - 1) } : receipt;
  }

  #alive(): Engine {
    if (this.#dead) throw new SlimeError("engine.unavailable", `${this.url} is gone`, { engine: this.url, reason: "ECONNREFUSED" });
    return this.#engine;
  }
}

/** The same announcement over bytes of which one has turned. */
async function corrupted({ version, source }: WeightUpdate): Promise<WeightUpdate> {
  const path = `${source.path}-corrupted`;
  const bytes = await readFile(source.path);
  bytes[bytes.length >> 1] = (bytes[bytes.length >> 1] ?? 0) ^ 1;
  await writeFile(path, bytes);
  return { version, source: { ...source, path } };
}
