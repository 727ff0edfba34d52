import { type Clock, ProcessId, type Random, type SlimeError, seededRandom, silentLogger, sleep } from "@slime/core";
import {
  type Adopted,
  adoptionEvent,
  controlProtocol,
  type EffectRunner,
  effectRunner,
  emptyNode,
  type HeadDialler,
  type HeadLink,
  headEvent,
  headLink,
  inventory,
  type NodeEvent,
  type NodeState,
  nodeLimits,
  type StepContext,
  settle,
  step,
} from "@slime/node/machine";
import type { NodeHello } from "@slime/rpc/control";
import type { DaemonHome } from "./daemon-home.js";
import { simHosts, simKeeper } from "./sim-keeper.js";
import type { DaemonPort, SimProcess } from "./sim-process.js";

const constructorThrew = Buffer.from(
  JSON.stringify({
    code: "call.failed",
    message: "the constructor threw",
    details: { name: "Error", where: "constructor" },
    stack: null,
    origin: "actor",
    cause: null,
  }),
);

export interface DaemonWorld {
  readonly clock: Clock;
  readonly random: Random;
  readonly clusterId: () => string;
  readonly dial: (machine: string) => HeadDialler;
  /** A dead daemon's connections: closed by its machine, or gone with it without a word. */
  readonly hangUp: (machine: string, silently: boolean) => void;
}

/**
 * One life of a machine's daemon: the real judgement, effects and link; processes, sockets and disk are the simulated machine's.
 * S1 a dead daemon does nothing more; S2 what reaches a frozen one waits until it is thawed.
 */
export class SimDaemon {
  readonly incarnation: number;
  state: NodeState = emptyNode;
  living = true;
  frozen = false;
  /** Epoch of the head that welcomed this life last; 0 before. */
  epoch = 0;
  /** It has found out what its earlier lives left. */
  settled = false;
  readonly machine: DaemonHome;
  readonly clock: Clock;
  readonly #world: DaemonWorld;
  readonly #context: StepContext;
  readonly #waiting: (() => void)[] = [];
  readonly #queue: NodeEvent[] = [];
  readonly #connected = new Set<SimProcess>();
  readonly #spoken = new Set<string>();
  readonly #runner: EffectRunner;
  #link: HeadLink | null = null;
  #busy = false;
  #stopping = false;

  constructor(world: DaemonWorld, machine: DaemonHome) {
    this.#world = world;
    this.machine = machine;
    this.incarnation = ++machine.incarnation;
    this.clock = { ...world.clock, after: (delayMs, run) => world.clock.after(delayMs, () => this.gate(run)) };
    const random = seededRandom(BigInt(Math.floor(world.random.unit() * 2 ** 52)));
    this.#context = {
      nodeId: machine.nodeId,
      gpus: machine.gpus,
      poolSize: machine.poolSize,
      newProcessId: () => ProcessId.create(random),
      wallMs: world.clock.wallMs,
    };
    const keeper = simKeeper(this);
    const hosts = simHosts(this, (processId) => [...this.#connected].find((process) => process.processId === processId && process.living));
    const runner = effectRunner({
      clock: this.clock,
      log: silentLogger,
      stateDir: "/sim",
      gpus: machine.gpus,
      keeper,
      hosts,
      ports: { release: () => [] },
      store: { freeJob() {} },
      environment: () => ({
        base: {},
        clusterId: world.clusterId(),
        nodeId: machine.nodeId,
        headAddress: "sim",
        httpAddress: "",
        eventsEndpoint: "",
        socketDir: "/sim",
        storeDir: "/sim",
        nodeSocket: "/sim/n.sock",
        binDirs: [],
      }),
      commands: () => ({ command: ["host"], env: {} }),
      state: () => this.state,
      dispatch: (event) => this.dispatch(event),
      report: (up) => this.#link?.send(up),
    });
    // Files are the machine's: this one effect would write a real one.
    this.#runner = { ...runner, run: (effect) => (effect.kind === "save_bundles" ? this.#saveBundles() : runner.run(effect)) };
    void this.#join(random);
  }

  /** Runs what reached the daemon, unless it is dead (S1) or frozen (S2). */
  gate(run: () => void): void {
    if (!this.living) return;
    if (this.frozen) this.#waiting.push(run);
    else run();
  }

  thaw(): void {
    this.frozen = false;
    for (let run = this.#waiting.shift(); run !== undefined && !this.frozen; run = this.#waiting.shift()) run();
  }

  /** SIGKILL: nothing is said, what runs runs on. */
  die(): void {
    this.living = false;
    this.#runner[Symbol.dispose]();
    for (const process of this.#connected) process.disconnected();
  }

  dispatch(event: NodeEvent): void {
    if (!this.living) return;
    this.#queue.push(event);
    if (this.#busy) return;
    this.#busy = true;
    try {
      for (let at = this.#queue.shift(); at !== undefined; at = this.#queue.shift()) this.#advance(step(this.state, at, this.#context));
    } finally {
      this.#busy = false;
    }
  }

  /** Ends everything here and leaves, as `slime-worker stop` does. */
  async stop(reason: string, graceMs: number): Promise<void> {
    if (this.#stopping) return;
    this.#stopping = true;
    this.dispatch({ kind: "stop", graceMs, reason });
    await this.#runner.settled();
    const untilMs = this.clock.nowMs() + graceMs + nodeLimits.stopMarginMs;
    while (this.machine.processes().length > 0 && this.clock.nowMs() < untilMs) await sleep(this.clock, 20);
    for (const process of this.machine.processes()) process.kill();
    await this.#link?.close({ message: { $case: "goodbye", value: { reason } } });
    if (!this.living) return;
    this.#runner[Symbol.dispose]();
    this.living = false;
    this.machine.left();
  }

  /** What hosts of this machine call; each word takes its time and finds the daemon it was said to, or none. */
  readonly port: DaemonPort = {
    registered: (process) =>
      this.#said(() => {
        this.#connected.add(process);
        if (!process.living) return;
        this.dispatch({
          kind: "host_registered",
          processId: process.processId,
          pid: process.pid,
          language: "node",
          actor: process.hosted(),
        });
        this.#spoken.add(process.processId);
      }),
    alive: (process, incarnation) =>
      this.#said(() =>
        this.dispatch({
          kind: "host_alive",
          processId: process.processId,
          incarnation,
          pid: process.pid,
          socket: process.hosted()?.socketPath ?? "",
        }),
      ),
    failed: (process) => this.#said(() => this.dispatch({ kind: "host_failed", processId: process.processId, failure: constructorThrew })),
    leaving: (process, reason) => this.#said(() => this.dispatch({ kind: "host_exit", processId: process.processId, reason })),
  };

  /** What the network brings is for a living, thawed daemon only. */
  #gated(dialler: HeadDialler): HeadDialler {
    return {
      ...dialler,
      ready: (timeoutMs) =>
        new Promise((resolve, reject) =>
          dialler.ready(timeoutMs).then(
            () => this.gate(resolve),
            (error: unknown) => this.gate(() => reject(error)),
          ),
        ),
      open: () => {
        const stream = dialler.open();
        return {
          ...stream,
          onData: (hear) => stream.onData((batch) => this.gate(() => hear(batch))),
          onOver: (hear) => stream.onOver((reason) => this.gate(() => hear(reason))),
        };
      },
    };
  }

  #said(run: () => void): void {
    this.#world.clock.after(1, () => this.gate(run));
  }

  #advance(next: ReturnType<typeof step>): void {
    this.state = next.state;
    if (this.settled) this.machine.onJudged(this.state);
    for (const effect of next.effects) this.#runner.run(effect);
  }

  #saveBundles(): void {
    const { bundles } = this.state;
    this.clock.after(1, () => this.machine.saveBundles(bundles));
  }

  async #join(random: Random): Promise<void> {
    await Promise.resolve(); // the machine knows its daemon from here on
    const { machine } = this;
    // Found in the order of their names, which says nothing.
    const adopted: Adopted[] = [...machine.records.values()].sort((a, b) => (a.record.processId < b.record.processId ? -1 : 1));
    this.dispatch({ kind: "adopted_bundles", bundles: machine.committedBundles() });
    for (const each of adopted) this.dispatch(adoptionEvent(each, "/sim/log"));
    for (const { record } of adopted) machine.reportIfEnded(record.processId);
    this.settled = true;
    await settle(
      adopted,
      () => this.state,
      (processId) => this.#spoken.has(processId),
      (processId) => machine.isLiving(processId),
      this.clock,
    );
    if (!this.living) return;
    this.#link = headLink({
      address: machine.name,
      dial: () => this.#gated(this.#world.dial(machine.name)),
      endOfTurn: queueMicrotask,
      clock: this.clock,
      random,
      log: silentLogger,
      hello: () => this.#hello(),
      heartbeat: (sequence) => ({ sequence, loopLagMs: 0, memoryFreeMib: 1_024, cpuFraction: 0, storeBytesUsed: 0, gpus: [] }),
      onWelcome: ({ epoch }) => {
        this.epoch = epoch;
        if (!this.state.stopping) this.dispatch({ kind: "welcomed" });
      },
      onMessage: (down) => {
        const event = headEvent(down);
        if (event?.kind === "shutdown") void this.stop("the head asked this node to stop", event.graceMs);
        else if (event !== null) this.dispatch(event);
      },
      onRefused: (error: SlimeError) => void this.stop(`the head refused this node: ${error.message}`, 0),
      onDown: (awayMs) => {
        if (awayMs >= nodeLimits.headAbsenceMsMax) void this.stop("no head", nodeLimits.stopGraceMs);
      },
    });
  }

  #hello(): NodeHello {
    const { machine } = this;
    return {
      protocol: controlProtocol,
      clusterId: this.#world.clusterId(),
      nodeId: machine.nodeId,
      incarnation: this.incarnation,
      hostname: machine.name,
      address: machine.address,
      bootId: `boot-${machine.name}-${machine.boots}`,
      pid: 1,
      version: "sim",
      resources: { ...machine.resources },
      gpus: [...machine.gpus],
      labels: {},
      nodeSocket: "/sim/n.sock",
      ...inventory(this.state),
      logDir: "/sim/logs",
    };
  }
}
