/** A random life of a cluster from one seed: work, faults, then peace; the laws are watched all along and judged at rest. */
import { SlimeError, seededRandom } from "@slime/core";
import { type SimulatedCluster, simulatedCluster } from "./cluster.js";
import { type Act, Dice, type FaultName, faultNames, faults } from "./faults.js";

export interface ChaosOptions {
  readonly seed: number;
  /** Steps of work and faults. */
  readonly steps?: number;
  /** Only these faults; default: all. */
  readonly faults?: readonly FaultName[];
}

export interface ChaosOutcome {
  readonly seed: number;
  readonly broken: readonly string[];
  readonly trace: readonly string[];
  readonly fingerprint: string;
  /** How often each thing was done: a fault that never happens proves nothing. */
  readonly did: Readonly<Record<string, number>>;
}

/** What users do; each request is said again, unchanged, until the head has answered it. */
class Work {
  readonly #cluster: SimulatedCluster;
  readonly #dice: Dice;
  readonly jobs: string[] = [];
  readonly #groups = new Map<string, { readonly job: string; readonly bundles: number }>();
  readonly #actors: string[] = [];
  #numbers = 0;
  readonly pending = new Set<Promise<void>>();

  constructor(cluster: SimulatedCluster, dice: Dice) {
    this.#cluster = cluster;
    this.#dice = dice;
  }

  submit(): void {
    const name = `j${++this.#numbers}`;
    const dice = this.#dice;
    const script =
      dice.pick([
        "runs",
        "runs",
        "runs",
        "runs",
        `exits-0-after-${dice.below(60_000)}`,
        `exits-1-after-${dice.below(40_000)}`,
        "runs+stubborn",
      ]) ?? "runs";
    const wish = { name, script, attempts: 1 + dice.below(3) };
    this.#until(() => this.#cluster.submit(wish));
    this.jobs.push(name);
  }

  group(): void {
    const job = this.#dice.pick(this.jobs);
    if (job === undefined) return;
    const name = `g${++this.#numbers}`;
    const bundles = Array.from({ length: 1 + this.#dice.below(3) }, () => ({ GPU: this.#dice.pick([1, 1, 0.5, 2]) ?? 1 }));
    const strategy = this.#dice.pick(["PACK", "SPREAD", "STRICT_SPREAD", "STRICT_PACK"]) ?? "PACK";
    this.#until(() => this.#cluster.createGroup({ name, job, strategy, bundles }));
    this.#groups.set(name, { job, bundles: bundles.length });
  }

  actor(): void {
    const dice = this.#dice;
    const name = `a${++this.#numbers}`;
    const script =
      dice.pick(["steady", "steady", "steady", "slow-4000", "fails", "stubborn", `dies-after-${dice.below(20_000)}`]) ?? "steady";
    const life = {
      name,
      script,
      restarts: dice.pick([0, 1, 3, -1]) ?? 0,
      restartWindowMs: dice.pick([0, 60_000]) ?? 0,
      detached: dice.chance(0.1),
    };
    const inGroup = dice.chance(0.5) ? dice.pick([...this.#groups]) : undefined;
    const job = inGroup?.[1].job ?? dice.pick(this.jobs);
    if (job === undefined) return;
    const resources = { GPU: dice.pick([1, 0.5, 0, 1]) ?? 1 };
    const where =
      inGroup === undefined ? {} : { group: inGroup[0], ...(dice.chance(0.6) ? { bundle: dice.below(inGroup[1].bundles) } : {}) };
    this.#until(() => this.#cluster.createActor({ ...life, job, resources, ...where }));
    this.#actors.push(name);
  }

  put(): void {
    const job = this.#dice.pick(this.jobs);
    if (job === undefined) return;
    const key = `k${this.#dice.below(5)}-${job}`;
    const value = String(++this.#numbers);
    void this.#cluster.put(job, key, value).catch(() => {});
  }

  stopJob(): void {
    const job = this.#dice.pick(this.jobs);
    if (job === undefined || !this.#cluster.names.has(job)) return;
    this.#until(() =>
      this.#cluster.head.ask({ kind: "job.stop", jobId: this.#cluster.names.idOf(job), graceMs: 2_000, waitMs: 60_000, reason: "asked" }),
    );
  }

  kill(): void {
    const actor = this.#dice.pick(this.#actors);
    const job = this.#dice.pick(this.jobs);
    if (actor === undefined || job === undefined || !this.#cluster.names.has(actor)) return;
    this.#until(() =>
      this.#cluster.client(job).call({
        $case: "killActor",
        value: { actorId: this.#cluster.names.idOf(actor), graceMs: 1_000, noRestart: this.#dice.chance(0.5) },
      }),
    );
  }

  removeGroup(): void {
    const group = this.#dice.pick([...this.#groups]);
    if (group === undefined || !this.#cluster.names.has(group[0])) return;
    this.#until(() =>
      this.#cluster
        .client(group[1].job)
        .call({ $case: "removePlacementGroup", value: { placementGroupId: this.#cluster.names.idOf(group[0]) } }),
    );
  }

  /** Again every second while nobody answers; any answer, a refusal too, is an end. */
  #until(say: () => Promise<unknown>): void {
    const again = (): Promise<void> =>
      say().then(
        () => {},
        async (error: unknown) => {
          if (SlimeError.isAny(error) && (error.code === "head.unavailable" || error.code === "call.deadline")) {
            await new Promise<void>((resolve) => void this.#cluster.clock.after(1_000, resolve));
            return again();
          }
          // A client of a job whose submission is under way is told that there is no such job; that is an answer.
          if (!SlimeError.isAny(error) && !(error instanceof RangeError)) throw error;
        },
      );
    const settled: Promise<void> = again().finally(() => this.pending.delete(settled));
    this.pending.add(settled);
  }
}

const works = [
  "submit",
  "submit",
  "group",
  "group",
  "actor",
  "actor",
  "actor",
  "actor",
  "actor",
  "actor",
  "put",
  "stopJob",
  "kill",
  "removeGroup",
] as const;

/** Runs one life. Quiescence: every fault undone, then as long as the slowest promise takes (grace after a restart, orphans, adoption). */
export async function chaos(options: ChaosOptions): Promise<ChaosOutcome> {
  const dice = new Dice(seededRandom(options.seed));
  const did: Record<string, number> = {};
  const count = (what: string) => void (did[what] = (did[what] ?? 0) + 1);
  const nodes = 2 + dice.below(4);
  const cluster = await simulatedCluster({
    seed: options.seed,
    nodes,
    gpus: 1 + dice.below(3),
    cpus: 64,
    poolSize: dice.below(2),
    delayMs: dice.pick([
      [1, 2],
      [1, 60],
      [5, 400],
    ] as const) ?? [1, 2],
    loss: dice.pick([0, 0, 0.01]) ?? 0,
    commitMs: dice.pick([
      [0, 0],
      [0, 20],
      [20, 300],
    ] as const) ?? [0, 0],
    keepaliveMs: dice.chance(0.5) ? [4_000, 65_000] : [60_000, 60_000],
  });
  const work = new Work(cluster, dice);
  for (let at = 0; at < 3; at++) work.submit();
  await cluster.run(1_000);
  for (let at = 0; at < 4; at++) work.group();
  for (let at = 0; at < 4; at++) work.actor();
  await cluster.run(1_000);
  const names = options.faults ?? faultNames;
  for (let at = 0; at < (options.steps ?? 40); at++) {
    const fault = dice.chance(0.45) ? dice.pick(names) : undefined;
    if (fault !== undefined) {
      count(fault);
      cluster.say(`fault ${fault}`);
      (faults[fault] as Act)(cluster, dice);
    } else {
      const what = dice.pick(works) ?? "actor";
      count(what);
      cluster.say(`work ${what}`);
      work[what]();
    }
    await cluster.run(dice.pick([0, 5, 50, 500, 2_000, 6_000]) ?? 0);
  }
  await peace(cluster);
  const { head } = cluster.head;
  if (head === null) cluster.laws.fail("L7", "no head listens at the end");
  else {
    cluster.laws.settled(head.state);
    cluster.laws.remembered(head.state);
  }
  if (work.pending.size > 0) cluster.laws.fail("L7", `${work.pending.size} requests were never answered`);
  await stop(cluster);
  for (const { name } of cluster.events) count(name);
  const outcome = {
    seed: options.seed,
    broken: [...cluster.laws.broken],
    trace: [...cluster.trace],
    fingerprint: cluster.fingerprint(),
    did,
  };
  await cluster.close();
  return outcome;
}

/** Undoes every fault and lets time pass. */
async function peace(cluster: SimulatedCluster): Promise<void> {
  cluster.say("peace");
  cluster.network.options.loss = 0;
  cluster.head.disk.commitMs = [0, 0];
  cluster.head.start();
  for (const machine of cluster.machines.values()) {
    cluster.network.heal(machine.name);
    machine.daemon?.thaw();
    machine.startDaemon();
  }
  await cluster.run(90_000);
}

async function stop(cluster: SimulatedCluster): Promise<void> {
  const stopped = cluster.head
    .ask({ kind: "cluster.stop", graceMs: 2_000, waitMs: 60_000 })
    .catch((error: unknown) => cluster.laws.fail("L9", `the cluster's stop failed: ${String(error)}`));
  await cluster.run(20_000);
  await Promise.race([stopped, Promise.resolve(cluster.laws.gone())]);
}
