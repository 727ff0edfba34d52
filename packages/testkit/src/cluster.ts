import { createHash } from "node:crypto";
import { ActorId, JobId, NodeId, PlacementGroupId, type Random, seededRandom } from "@slime/core";
import { type VirtualClock, virtualClock } from "@slime/core/testing";
import type { EventFields, EventName } from "@slime/telemetry";
import { Laws } from "./laws.js";
import { eventLine, Names } from "./names.js";
import { SimClient } from "./sim-client.js";
import { SimHead } from "./sim-head.js";
import { SimMachine } from "./sim-machine.js";
import { SimNetwork } from "./sim-wire.js";
import { type ActorWish, actorSpec, type GroupWish, type JobWish, jobSpec, units } from "./wishes.js";

export interface SimulatedClusterOptions {
  readonly seed: number;
  /** How many machines join at the start, as n1, n2, … */
  readonly nodes: number;
  readonly gpus?: number;
  readonly cpus?: number;
  /** Hosts each daemon keeps ready. */
  readonly poolSize?: number;
  /** Least and largest delay of a message, ms. */
  readonly delayMs?: readonly [number, number];
  /** Chance that a message is lost and its connection with it. */
  readonly loss?: number;
  /** Least and largest duration of the head's commits, ms. */
  readonly commitMs?: readonly [number, number];
  /** When each side notices a network fallen silent: daemons, head. */
  readonly keepaliveMs?: readonly [number, number];
}

export interface SimEvent {
  readonly atMs: number;
  readonly name: EventName;
  readonly fields: EventFields<EventName>;
}

/**
 * A whole cluster in one process on virtual time: the real head, the daemons' real judgement, effects and links, scripted processes, and a
 * network, disk and machines that fail on demand. C1: equal options and equal calls give an equal trace, byte for byte on the wire.
 */
export class SimulatedCluster {
  readonly clock: VirtualClock = virtualClock();
  readonly random: Random;
  readonly names = new Names();
  readonly network: SimNetwork;
  readonly head: SimHead;
  readonly laws: Laws;
  readonly machines = new Map<string, SimMachine>();
  /** What happened, in order: time, then words. */
  readonly trace: string[] = [];
  readonly events: SimEvent[] = [];
  readonly #options: Required<SimulatedClusterOptions>;
  readonly #wire = createHash("sha256");
  readonly #clients = new Map<string, SimClient>();
  #messages = 0;

  constructor(options: SimulatedClusterOptions) {
    this.#options = { gpus: 0, cpus: 8, poolSize: 0, delayMs: [1, 2], loss: 0, commitMs: [0, 0], keepaliveMs: [4_000, 65_000], ...options };
    this.random = seededRandom(options.seed);
    const { delayMs, loss, keepaliveMs, commitMs } = this.#options;
    this.laws = new Laws({ nowMs: () => this.clock.nowMs(), machines: () => this.machines.values(), names: this.names });
    this.network = new SimNetwork({
      clock: this.clock,
      random: this.random,
      delayMs,
      loss,
      keepaliveMs,
      onMessage: (bytes) => {
        this.#messages++;
        this.#wire.update(bytes);
      },
    });
    this.head = new SimHead({
      clock: this.clock,
      random: this.random,
      network: this.network,
      events: {
        publish: (name, fields) => this.#heard({ atMs: this.clock.nowMs(), name, fields: fields as EventFields<EventName> }),
      },
      onDurable: (tables) => this.laws.written(tables),
      onListening: (head) => this.laws.remembered(head.state),
      trace: (line) => this.say(line),
    });
    this.head.disk.commitMs = commitMs;
  }

  /** Starts the head and the machines, and lets them meet. */
  async start(): Promise<void> {
    this.head.start();
    await this.run(50);
    for (let n = 1; n <= this.#options.nodes; n++) this.addMachine({});
    await this.run(1_000);
  }

  addMachine(options: { readonly name?: string; readonly gpus?: number; readonly cpus?: number }): SimMachine {
    const number = this.machines.size + 1;
    const name = options.name ?? `n${number}`;
    const nodeId = NodeId.create(this.random);
    this.names.set(nodeId, name);
    const machine = new SimMachine(
      {
        clock: this.clock,
        random: this.random,
        clusterId: () => this.head.clusterId,
        dial: (from) => this.head.dialler(from),
        hangUp: (from, silently) => (silently ? this.network.vanish(from) : this.network.cut(from)),
      },
      {
        trace: (line) => this.say(line),
        onOccupied: (on, process) => this.laws.occupied(on, process),
        onJudged: (on, state) => this.laws.judged(on, state),
      },
      {
        name,
        nodeId,
        address: `10.0.0.${number}`,
        gpus: options.gpus ?? this.#options.gpus,
        cpus: options.cpus ?? this.#options.cpus,
        poolSize: this.#options.poolSize,
      },
    );
    this.machines.set(name, machine);
    machine.startDaemon();
    return machine;
  }

  machine(name: string): SimMachine {
    const machine = this.machines.get(name);
    if (machine === undefined) throw new RangeError(`there is no machine ${name}; there are ${[...this.machines.keys()].join(", ")}`);
    return machine;
  }

  /** Moves time on. */
  run(ms: number): Promise<void> {
    return this.clock.run(ms);
  }

  say(line: string): void {
    this.trace.push(`${(this.clock.nowMs() / 1_000).toFixed(3)} ${line}`);
  }

  /** Of every byte that arrived so far, in order. */
  fingerprint(): string {
    return `${this.#messages} messages, ${this.#wire.copy().digest("hex")}`;
  }

  /** Submits a job, or says the same again. Settles when the head acknowledged it. */
  async submit(wish: JobWish): Promise<unknown> {
    const jobId = this.#id(wish.name, () => JobId.create(this.random));
    const spec = jobSpec(wish, jobId);
    const answer = await this.head.ask({
      kind: "job.submit",
      job: { spec, requestHash: JSON.stringify([wish.script, wish.resources, wish.attempts]), runtimeEnv: {} },
    });
    this.laws.acknowledged("jobs", jobId);
    return answer;
  }

  async createActor(wish: ActorWish): Promise<void> {
    const actorId = this.#id(wish.name, () => ActorId.create(this.random));
    const placementGroupId = wish.group === undefined ? "" : this.names.idOf(wish.group);
    const spec = actorSpec(wish, { actorId, jobId: this.names.idOf(wish.job), placementGroupId });
    await this.client(wish.job).call({ $case: "createActor", value: { spec } });
    this.laws.acknowledged("actors", actorId);
  }

  async createGroup(wish: GroupWish): Promise<void> {
    const placementGroupId = this.#id(wish.name, () => PlacementGroupId.create(this.random));
    const bundles = wish.bundles.map((resources) => ({ resources: units(resources) }));
    await this.client(wish.job).call({
      $case: "createPlacementGroup",
      value: { placementGroupId, jobId: this.names.idOf(wish.job), strategy: wish.strategy ?? "PACK", bundles, name: wish.name },
    });
    this.laws.acknowledged("groups", placementGroupId);
  }

  async put(job: string, key: string, value: string): Promise<void> {
    this.laws.kvWritten(key, value, false);
    await this.client(job).call({ $case: "kvPut", value: { key, value: Buffer.from(value), ifAbsent: false } });
    this.laws.kvWritten(key, value, true);
  }

  /** The client that speaks for a job; of an unknown name: an interactive driver, whose job gets that name. */
  client(job: string): SimClient {
    const known = this.#clients.get(job);
    if (known !== undefined) return known;
    const client = new SimClient(this.head, this.clock, this.names.has(job) ? this.names.idOf(job) : "");
    this.#clients.set(job, client);
    return client;
  }

  /**
   * An older head's late words to a daemon: they must change nothing (L8). Nothing happens where no daemon hears.
   * @param epochsOld 0 says them with the epoch the daemon knows, to see that the law notices.
   */
  whisperStale(name: string, epochsOld = 1): void {
    const machine = this.machine(name);
    const { daemon } = machine;
    const epoch = (daemon?.epoch ?? 0) - epochsOld;
    if (daemon === null || !daemon.living || daemon.frozen || epoch < 1) return;
    const before = daemon.state;
    const messages = [
      ...[...before.actors.keys()].map((actorId) => ({
        message: { $case: "stopActor" as const, value: { actorId, incarnation: 0, graceMs: 0, reason: "KILLED" } },
      })),
      ...[...before.bundles].map(([placementGroupId, { generation }]) => ({
        message: { $case: "release" as const, value: { placementGroupId, generation } },
      })),
      ...[...before.jobs.keys()].map((jobId) => ({ message: { $case: "stopJob" as const, value: { jobId, graceMs: 0 } } })),
      {
        message: {
          $case: "startJob" as const,
          value: {
            attempt: 1,
            spec: {
              jobId: "job_ffffffffffffffff",
              submissionId: "",
              entrypoint: "runs",
              env: {},
              cwd: "",
              metadata: {},
              resources: {},
              attemptsMax: 1,
            },
          },
        },
      },
    ];
    this.head.whisper(name, { epoch, messages });
    this.laws.staleIgnored(machine, before, daemon.state);
  }

  /** Ends the simulation's head without a word; virtual time then stands still. */
  async close(): Promise<void> {
    this.head.crash();
    for (const machine of this.machines.values()) machine.killDaemon();
  }

  #heard(event: SimEvent): void {
    this.events.push(event);
    this.say(eventLine(event.name, event.fields, this.names));
    const { actorId, incarnation, jobId, attempt, message } = event.fields as {
      readonly actorId?: string;
      readonly incarnation?: number;
      readonly jobId?: string;
      readonly attempt?: number;
      readonly message?: string;
    };
    if (message?.includes("was lost") === true) this.laws.lost(actorId ?? jobId ?? "", incarnation ?? attempt ?? 0);
    const head = this.head.head;
    if (event.name === "job.ended" && head !== null && jobId !== undefined) this.laws.jobGone(head.state, jobId);
  }

  #id(name: string, create: () => string): string {
    if (!this.names.has(name)) this.names.set(create(), name);
    return this.names.idOf(name);
  }
}

/** Builds a simulated cluster and lets its machines join. */
export async function simulatedCluster(options: SimulatedClusterOptions): Promise<SimulatedCluster> {
  const cluster = new SimulatedCluster(options);
  await cluster.start();
  return cluster;
}
