import type { Adopted, Bundles, NodeState } from "@slime/node/machine";
import type { GpuDevice, HowItDied } from "@slime/platform";
import type { DaemonHome } from "./daemon-home.js";
import { type DaemonWorld, SimDaemon } from "./sim-daemon.js";
import { seenGoneMs } from "./sim-keeper.js";
import { type ProcessEnd, SimProcess, type SimProcessSpec } from "./sim-process.js";

export interface MachineOptions {
  readonly name: string;
  readonly nodeId: string;
  readonly address: string;
  readonly gpus: number;
  readonly cpus: number;
  readonly poolSize: number;
}

/** Hears what happens on machines, as it happens. */
export interface MachineObserver {
  readonly trace: (line: string) => void;
  readonly onOccupied: (machine: SimMachine, process: SimProcess) => void;
  readonly onJudged: (machine: SimMachine, state: NodeState) => void;
}

/** A machine: what is on its disk, what runs on it, and the daemon, if one lives. */
export class SimMachine implements DaemonHome {
  readonly name: string;
  readonly nodeId: string;
  readonly address: string;
  readonly gpus: readonly GpuDevice[];
  readonly resources: Readonly<Record<string, number>>;
  readonly poolSize: number;
  /** Ownership records: durable. */
  readonly records = new Map<string, Adopted>();
  incarnation = 0;
  boots = 1;
  daemon: SimDaemon | null = null;
  /** It left in order: its directory says so. */
  gone = false;
  readonly #world: DaemonWorld;
  readonly #observer: MachineObserver;
  readonly #processes = new Map<string, SimProcess>();
  readonly #ends = new Map<string, { readonly end: ProcessEnd; readonly pid: number }>();
  #bundles: Bundles = new Map();
  #pids = 100;

  constructor(world: DaemonWorld, observer: MachineObserver, options: MachineOptions) {
    this.#world = world;
    this.#observer = observer;
    this.name = options.name;
    this.nodeId = options.nodeId;
    this.address = options.address;
    this.poolSize = options.poolSize;
    this.gpus = Array.from({ length: options.gpus }, (_, index) => ({
      index,
      uuid: `${options.name}-gpu-${index}`,
      name: "simulated",
      memoryMib: 1_024,
      virtual: true,
    }));
    this.resources = { CPU: options.cpus * 10_000, ...(options.gpus > 0 ? { GPU: options.gpus * 10_000 } : {}) };
  }

  startDaemon(): void {
    if (this.daemon?.living === true) return;
    this.gone = false;
    this.#observer.trace(`${this.name} daemon starts, incarnation ${this.incarnation + 1}`);
    this.daemon = new SimDaemon(this.#world, this);
  }

  /** The daemon is killed; processes live on. */
  killDaemon(silently = false): void {
    if (this.daemon === null) return;
    this.#world.hangUp(this.name, silently);
    this.daemon.die();
    this.daemon = null;
  }

  /** Everything here stops at once; the disk stays. */
  powerOff(): void {
    this.killDaemon(true);
    for (const process of this.processes()) process.exit({ exitCode: null, signal: null });
    this.boots++;
  }

  left(): void {
    this.daemon = null;
    this.gone = true;
    this.records.clear();
    this.#bundles = new Map();
    this.#observer.trace(`${this.name} daemon left`);
  }

  /** Living processes, drivers too. */
  processes(): readonly SimProcess[] {
    return [...this.#processes.values()].filter((process) => process.living);
  }

  processOf(processId: string): SimProcess | null {
    return this.#processes.get(processId) ?? null;
  }

  isLiving(processId: string): boolean {
    return this.#processes.get(processId)?.living ?? false;
  }

  nextPid(): number {
    return ++this.#pids;
  }

  spawn(of: SimProcessSpec): void {
    const { clock, random } = this.#world;
    const process: SimProcess = new SimProcess(
      {
        clock,
        random,
        daemon: () => (this.daemon?.living === true ? this.daemon.port : null),
        // Called by the constructor too, before the process is known here.
        onOccupied: (occupied) => {
          this.#processes.set(of.processId, occupied);
          this.#observer.onOccupied(this, occupied);
        },
        onExit: (exited, end) => this.#exited(exited, end),
      },
      of,
    );
    this.#processes.set(of.processId, process);
  }

  /** Tells a new daemon of a process of its earlier life that ended meanwhile. */
  reportIfEnded(processId: string): void {
    const ended = this.#ends.get(processId);
    if (ended !== undefined) this.daemon?.dispatch({ kind: "ended", processId, pid: ended.pid, death: howItDied(ended.end) });
    else if (!this.isLiving(processId))
      this.daemon?.dispatch({ kind: "ended", processId, pid: 0, death: howItDied({ exitCode: null, signal: null }) });
  }

  saveBundles(bundles: Bundles): void {
    this.#bundles = bundles;
  }

  /** What a daemon of a next life reads: reservations that were committed. */
  committedBundles(): Bundles {
    return new Map([...this.#bundles].filter(([, reservation]) => reservation.committed));
  }

  onJudged(state: NodeState): void {
    this.#observer.onJudged(this, state);
  }

  #exited(process: SimProcess, end: ProcessEnd): void {
    this.#ends.set(process.processId, { end, pid: process.pid });
    this.#processes.delete(process.processId);
    const { daemon } = this;
    if (daemon === null || !daemon.living) return;
    this.#world.clock.after(seenGoneMs, () =>
      daemon.gate(() => daemon.dispatch({ kind: "ended", processId: process.processId, pid: process.pid, death: howItDied(end) })),
    );
  }
}

function howItDied({ exitCode, signal }: ProcessEnd): HowItDied {
  const message =
    signal !== null
      ? `it was killed by ${signal}`
      : exitCode !== null
        ? `it ended with exit code ${exitCode}`
        : "it ended while nobody watched";
  return { exitCode, signal, oom: false, message, stderrTail: [] };
}
