import type { Random } from "@slime/core";
import type { SimulatedCluster } from "./cluster.js";

/** Makes one kind of trouble. */
export type Act = (cluster: SimulatedCluster, dice: Dice) => void;

/** Chance in words. */
export class Dice {
  readonly #random: Random;
  constructor(random: Random) {
    this.#random = random;
  }
  below(n: number): number {
    return Math.floor(this.#random.unit() * n);
  }
  pick<T>(items: readonly T[]): T | undefined {
    return items[this.below(items.length)];
  }
  chance(p: number): boolean {
    return this.#random.unit() < p;
  }
}

const anyMachine = (cluster: SimulatedCluster, dice: Dice) => dice.pick([...cluster.machines.values()]);
const anyProcess = (cluster: SimulatedCluster, dice: Dice) =>
  dice.pick([...cluster.machines.values()].flatMap((machine) => machine.processes()));

/** What can go wrong, by name: each does it once, somewhere. */
export const faults = {
  partition: (cluster, dice) => {
    const machine = anyMachine(cluster, dice);
    if (machine !== undefined) cluster.network.partition(machine.name);
  },
  heal: (cluster, dice) => {
    const machine = anyMachine(cluster, dice);
    if (machine !== undefined) cluster.network.heal(machine.name);
  },
  cut: (cluster, dice) => {
    const machine = anyMachine(cluster, dice);
    if (machine !== undefined) cluster.network.cut(machine.name);
  },
  cutClient: (cluster) => cluster.network.cut("client"),
  freeze: (cluster, dice) => {
    const machine = anyMachine(cluster, dice);
    if (machine?.daemon != null) machine.daemon.frozen = true;
  },
  thaw: (cluster, dice) => anyMachine(cluster, dice)?.daemon?.thaw(),
  killDaemon: (cluster, dice) => anyMachine(cluster, dice)?.killDaemon(),
  startDaemon: (cluster, dice) => anyMachine(cluster, dice)?.startDaemon(),
  powerOff: (cluster, dice) => {
    if (dice.chance(0.5)) anyMachine(cluster, dice)?.powerOff();
  },
  crashHead: (cluster) => cluster.head.crash(),
  startHead: (cluster) => cluster.head.start(),
  slowDisk: (cluster, dice) => {
    cluster.head.disk.commitMs = dice.pick([
      [0, 0],
      [0, 20],
      [50, 800],
    ] as const) ?? [0, 0];
  },
  killProcess: (cluster, dice) => anyProcess(cluster, dice)?.kill(),
  staleWords: (cluster, dice) => {
    const machine = anyMachine(cluster, dice);
    if (machine !== undefined) cluster.whisperStale(machine.name);
  },
} as const satisfies Readonly<Record<string, Act>>;

export type FaultName = keyof typeof faults;
export const faultNames = Object.keys(faults) as readonly FaultName[];
