import { SlimeError } from "@slime/core";
import type { SimulatedCluster } from "./cluster.js";
import { describeCluster, describeWaiting } from "./scenario-views.js";

/** A command's words, each taken once; what is left at the end was not understood. */
export interface Arguments {
  readonly subject: () => string;
  readonly text: (key: string, fallback: string) => string;
  readonly maybe: (key: string) => string | undefined;
  readonly number: (key: string, fallback: number) => number;
  readonly resources: () => Record<string, number>;
  readonly done: () => void;
}

type Command = (cluster: SimulatedCluster, args: Arguments) => Promise<readonly string[]>;

/** How long a command looks at what it started, and how long it waits for an answer. */
const afterMs = 200;
const answerMsMax = 70_000;

/** Lets time pass until a request is answered; says how. With `wait=no` it only looks for a moment. */
async function answered(
  cluster: SimulatedCluster,
  request: Promise<unknown>,
  args: Arguments,
  settleMs = afterMs,
): Promise<readonly string[]> {
  const wait = args.text("wait", "yes") === "yes";
  let words: string | null = null;
  request.then(
    () => void (words = "ok"),
    (error: unknown) => void (words = SlimeError.isAny(error) ? cluster.names.shown(error.message) : String(error)),
  );
  for (let waitedMs = 0; wait && words === null && waitedMs < answerMsMax; waitedMs += 10) await cluster.run(10);
  await cluster.run(settleMs);
  return [words ?? (wait ? "no answer" : "not answered yet")];
}

/** A fault: done at once, watched for a moment. */
const fault =
  (act: (cluster: SimulatedCluster, name: string) => void): Command =>
  async (cluster, args) => {
    act(cluster, args.subject());
    await cluster.run(afterMs);
    return [];
  };

const daemonOf = (cluster: SimulatedCluster, name: string) => {
  const { daemon } = cluster.machine(name);
  if (daemon === null) throw new RangeError(`${name} runs no daemon`);
  return daemon;
};

/** Everything a scenario can say, by its first word. */
export const commands: Readonly<Record<string, Command>> = {
  async run(cluster, args) {
    await cluster.run(args.number("ms", 0));
    return [];
  },
  async join(cluster, args) {
    cluster.addMachine({ gpus: args.number("gpus", 0), cpus: args.number("cpus", 8) });
    await cluster.run(afterMs);
    return [];
  },
  submit: (cluster, args) =>
    answered(
      cluster,
      cluster.submit({
        name: args.subject(),
        script: args.text("driver", "runs"),
        attempts: args.number("attempts", 1),
        resources: { CPU: 1, ...args.resources() },
      }),
      args,
    ),
  stop: (cluster, args) =>
    answered(
      cluster,
      cluster.head.ask({
        kind: "job.stop",
        jobId: cluster.names.idOf(args.subject()),
        graceMs: args.number("grace", 3_000),
        waitMs: args.number("within", 60_000),
        reason: "a user asked",
      }),
      args,
    ),
  group: (cluster, args) =>
    answered(
      cluster,
      cluster.createGroup({
        name: args.subject(),
        job: args.text("job", ""),
        strategy: args.text("strategy", "PACK"),
        bundles: args.text("bundles", "").split(" ").map(bundle),
      }),
      args,
    ),
  ungroup(cluster, args) {
    const placementGroupId = cluster.names.idOf(args.subject());
    return answered(
      cluster,
      cluster.client(args.text("job", "")).call({ $case: "removePlacementGroup", value: { placementGroupId } }),
      args,
    );
  },
  actor(cluster, args) {
    const group = args.maybe("group");
    const bundleIndex = args.maybe("bundle");
    const where = { ...(group === undefined ? {} : { group }), ...(bundleIndex === undefined ? {} : { bundle: Number(bundleIndex) }) };
    const life = {
      restarts: args.number("restarts", 0),
      restartWindowMs: args.number("window", 0),
      detached: args.text("detached", "no") === "yes",
      creationTimeoutMs: args.number("creation", 60_000),
    };
    return answered(
      cluster,
      cluster.createActor({
        name: args.subject(),
        job: args.text("job", ""),
        script: args.text("script", "steady"),
        resources: args.resources(),
        ...where,
        ...life,
      }),
      args,
    );
  },
  kill(cluster, args) {
    const actorId = cluster.names.idOf(args.subject());
    const value = { actorId, graceMs: args.number("grace", 1_000), noRestart: args.text("restart", "no") !== "yes" };
    return answered(cluster, cluster.client(args.text("job", "")).call({ $case: "killActor", value }), args);
  },
  put: (cluster, args) => answered(cluster, cluster.put(args.text("job", ""), args.subject(), args.text("value", "")), args),
  async get(cluster, args) {
    let found = "nothing";
    const call = cluster.client(args.text("job", "")).call({ $case: "kvGet", value: { key: args.subject() } });
    const words = await answered(
      cluster,
      call.then((reply) => void (reply.$case === "kv" && reply.value.found && (found = reply.value.value.toString("utf8")))),
      args,
      0,
    );
    return words[0] === "ok" ? [found] : words;
  },
  /** SIGKILL to an actor's process or a job's driver. */
  crash: fault((cluster, name) => {
    const id = cluster.names.idOf(name);
    for (const machine of cluster.machines.values())
      for (const process of machine.processes()) if (process.actor?.spec?.actorId === id || process.job?.spec?.jobId === id) process.kill();
  }),
  silence: fault((cluster, name) => void (daemonOf(cluster, name).frozen = true)),
  thaw: fault((cluster, name) => daemonOf(cluster, name).thaw()),
  cut: fault((cluster, name) => cluster.network.cut(name)),
  partition: fault((cluster, name) => cluster.network.partition(name)),
  heal: fault((cluster, name) => cluster.network.heal(name)),
  "power-off": fault((cluster, name) => cluster.machine(name).powerOff()),
  "kill-daemon": fault((cluster, name) => cluster.machine(name).killDaemon()),
  "start-daemon": fault((cluster, name) => cluster.machine(name).startDaemon()),
  "stale-words": fault((cluster, name) => cluster.whisperStale(name)),
  "crash-head": async (cluster) => {
    cluster.head.crash();
    await cluster.run(afterMs);
    return [];
  },
  "start-head": async (cluster) => {
    cluster.head.start();
    await cluster.run(afterMs);
    return [];
  },
  async disk(cluster, args) {
    const ms = args.number("commit", 0);
    cluster.head.disk.commitMs = [ms, ms];
    cluster.head.disk.full = args.text("full", "no") === "yes";
    return [];
  },
  show: async (cluster) => describeCluster(cluster),
  why: async (cluster, args) => describeWaiting(cluster, args.subject()),
  /** Judges the cluster as one that is at rest. */
  async laws(cluster) {
    const { head } = cluster.head;
    if (head !== null) {
      cluster.laws.settled(head.state);
      cluster.laws.remembered(head.state);
    }
    return cluster.laws.broken.length === 0 ? ["they hold"] : cluster.laws.broken;
  },
  async "stop-cluster"(cluster, args) {
    const words = await answered(
      cluster,
      cluster.head.ask({ kind: "cluster.stop", graceMs: args.number("grace", 3_000), waitMs: 60_000 }),
      args,
      1_000,
    );
    cluster.laws.gone();
    return [...words, ...cluster.laws.broken];
  },
};

/** `GPU:1,CPU:2`. */
function bundle(text: string): Record<string, number> {
  return Object.fromEntries(text.split(",").map((part) => [part.split(":")[0] ?? "", Number(part.split(":")[1] ?? 1)]));
}
