/**
 * A daemon without processes: it says hello, starts what it is told to in memory, and answers as a real one does. It can lose its link,
 * be silent, die and come back, with or without what it ran.
 */
import type { Clock } from "@slime/core";
import type { ActorReport, Death, HeldBundles, JobReport, NodeDown, NodeHello, NodeUp, RunningActor, RunningJob } from "@slime/rpc/control";
import type { Head, NodeInlet } from "../head-api.js";
import { controlProtocol } from "../limits.js";

export interface FakeDaemonOptions {
  readonly nodeId: string;
  readonly clock: Clock;
  readonly cpus?: number;
  readonly gpus?: number;
  readonly address?: string;
  readonly labels?: Readonly<Record<string, string>>;
  /** What happens to an actor that is started; default: it is alive at once. */
  readonly onStart?: (daemon: FakeDaemon, actorId: string, incarnation: number) => void;
  /** False: drivers are said to run only when the test says so. */
  readonly autoRun?: boolean;
  /** How long the next message takes to be obeyed, in ms; messages keep their order, those on a link that breaks are lost. Default: none. */
  readonly lagMs?: () => number;
  /** False: reservations are answered only when the test says so. */
  readonly autoReserve?: boolean;
}

export interface FakeDaemon {
  readonly nodeId: string;
  /** Everything the head said, in order. */
  readonly heard: NonNullable<NodeDown["message"]>[];
  readonly actors: Map<string, RunningActor>;
  readonly jobs: Map<string, RunningJob>;
  readonly bundles: Map<string, HeldBundles>;
  /** Names of the messages heard of one kind. */
  readonly connect: (head: Head) => void;
  /** The link breaks; what runs runs on. */
  readonly disconnect: () => void;
  /** As a new process of the same node: `keep` says whether what ran was adopted. */
  readonly restart: (keep: boolean) => void;
  readonly say: (message: NonNullable<NodeUp["message"]>) => void;
  readonly alive: (actorId: string) => void;
  readonly die: (actorId: string, death?: Partial<Death>, creationFailure?: Buffer) => void;
  readonly driverEnds: (jobId: string, exitCode: number) => void;
  /** Stops answering, heartbeats too. */
  readonly hang: () => void;
}

export function fakeDaemon(options: FakeDaemonOptions): FakeDaemon {
  const {
    nodeId,
    clock,
    cpus = 4,
    gpus = 0,
    address = "127.0.0.1",
    labels = {},
    onStart = (daemon, actorId) => daemon.alive(actorId),
    autoRun = true,
    autoReserve = true,
    lagMs = () => 0,
  } = options;
  let incarnation = 1;
  let epoch = 0;
  let clusterId = "";
  let inlet: NodeInlet | null = null;
  let beats = 0;
  let hung = false;
  let pids = 1_000;
  let generation = 0;
  let busyUntilMs = 0;
  const endedActors: ActorReport[] = [];
  const endedJobs: JobReport[] = [];

  const hello = (): NodeHello => ({
    protocol: controlProtocol,
    clusterId,
    nodeId,
    incarnation,
    hostname: `host-${nodeId}`,
    address,
    bootId: "boot",
    pid: 4_000 + incarnation,
    version: "0.1.0",
    resources: { CPU: cpus * 10_000, memory: 1_024 * 10_000, ...(gpus > 0 ? { GPU: gpus * 10_000 } : {}) },
    gpus: Array.from({ length: gpus }, (_, index) => ({
      index,
      uuid: `${nodeId}-gpu-${index}`,
      name: "virtual",
      memoryMib: 1_024,
      virtual: true,
    })),
    labels: { ...labels },
    nodeSocket: `/tmp/n-${nodeId}.sock`,
    actors: [...daemon.actors.values()],
    jobs: [...daemon.jobs.values()],
    bundles: [...daemon.bundles.values()],
    logDir: `/var/log/${nodeId}`,
    endedActors: [...endedActors],
    endedJobs: [...endedJobs],
  });
  const say: FakeDaemon["say"] = (message) => {
    if (!hung) inlet?.receive({ epoch, messages: [{ message }] });
  };
  const beat = (mine: number): void => {
    if (inlet === null || mine !== generation) return;
    say({
      $case: "heartbeat",
      value: { sequence: ++beats, loopLagMs: 1, memoryFreeMib: 512, cpuFraction: 0.25, storeBytesUsed: 0, gpus: [] },
    });
    clock.after(2_000, () => beat(mine));
  };
  const deathOf = (pid: number, death: Partial<Death> = {}): Death => ({
    reason: "WORKER_DIED",
    message: "it was killed by SIGKILL",
    pid,
    signal: "SIGKILL",
    oom: false,
    stderrTail: [],
    nodeId,
    atMs: clock.wallMs(),
    ...death,
  });

  const obey = (message: NonNullable<NodeDown["message"]>): void => {
    switch (message.$case) {
      case "welcome":
        epoch = message.value.epoch;
        clusterId = message.value.clusterId;
        return;
      case "startActor": {
        const { spec } = message.value;
        if (spec === undefined || daemon.actors.get(spec.actorId)?.incarnation === message.value.incarnation) return;
        daemon.actors.set(spec.actorId, { spec, incarnation: message.value.incarnation, pid: ++pids, socket: "" });
        onStart(daemon, spec.actorId, message.value.incarnation);
        return;
      }
      case "stopActor": {
        const running = daemon.actors.get(message.value.actorId);
        if (running !== undefined && (message.value.incarnation === 0 || running.incarnation === message.value.incarnation)) {
          const { actorId, reason } = message.value;
          const { incarnation: stopped } = running;
          const end = () => {
            if (daemon.actors.get(actorId)?.incarnation === stopped) daemon.die(actorId, { reason, message: "it was stopped" });
          };
          const grace = lagMs() * 3; // a process takes its time to end; other messages do not wait for it
          if (grace === 0) end();
          else clock.after(grace, end);
        }
        return;
      }
      case "startJob": {
        const { spec, attempt } = message.value;
        if (spec === undefined || daemon.jobs.get(spec.jobId)?.attempt === attempt) return;
        const running: RunningJob = { spec, attempt, pid: ++pids, logPath: `/var/log/${nodeId}/${spec.jobId}-${attempt}.log` };
        daemon.jobs.set(spec.jobId, running);
        if (autoRun)
          say({
            $case: "job",
            value: { jobId: spec.jobId, attempt, state: { $case: "running", value: { pid: running.pid, logPath: running.logPath } } },
          });
        return;
      }
      case "stopJob": {
        const running = daemon.jobs.get(message.value.jobId);
        if (running !== undefined) ended(message.value.jobId, { signal: "SIGTERM", message: "it was stopped", stopped: true });
        return;
      }
      case "prepare": {
        const { placementGroupId, generation: number, bundles } = message.value;
        daemon.bundles.set(placementGroupId, { placementGroupId, generation: number, bundles, committed: false });
        if (autoReserve)
          say({ $case: "bundles", value: { placementGroupId, generation: number, step: "prepare", failure: Buffer.alloc(0) } });
        return;
      }
      case "commit": {
        const { placementGroupId, generation: number } = message.value;
        const held = daemon.bundles.get(placementGroupId);
        if (held !== undefined) daemon.bundles.set(placementGroupId, { ...held, committed: true });
        if (autoReserve)
          say({ $case: "bundles", value: { placementGroupId, generation: number, step: "commit", failure: Buffer.alloc(0) } });
        return;
      }
      case "release": {
        const { placementGroupId, generation: number } = message.value;
        daemon.bundles.delete(placementGroupId);
        if (autoReserve)
          say({ $case: "bundles", value: { placementGroupId, generation: number, step: "release", failure: Buffer.alloc(0) } });
        return;
      }
      case "forgetJob": {
        const { jobId } = message.value;
        endedJobs.splice(0, endedJobs.length, ...endedJobs.filter((report) => report.jobId !== jobId));
        return;
      }
      case "shutdown":
        for (const actorId of [...daemon.actors.keys()]) daemon.die(actorId, { reason: "KILLED", message: "the node stops" });
        say({ $case: "goodbye", value: { reason: "told to stop" } });
        return;
      case "refused":
      case "ack":
        return;
    }
  };
  const ended = (
    jobId: string,
    how: { readonly exitCode?: number; readonly signal?: string; readonly message: string; readonly stopped: boolean },
  ): void => {
    const running = daemon.jobs.get(jobId);
    if (running === undefined) return;
    daemon.jobs.delete(jobId);
    const report: JobReport = { jobId, attempt: running.attempt, state: { $case: "ended", value: how } };
    endedJobs.push(report);
    say({ $case: "job", value: report });
  };

  let current: Head | null = null;
  const daemon: FakeDaemon = {
    nodeId,
    heard: [],
    actors: new Map(),
    jobs: new Map(),
    bundles: new Map(),
    connect(head) {
      current = head;
      hung = false;
      const mine = ++generation;
      inlet = head.openNode({
        send: ({ message }) => {
          if (message === undefined || mine !== generation || hung) return;
          daemon.heard.push(message);
          const lag = lagMs();
          busyUntilMs = Math.max(busyUntilMs, clock.nowMs() + lag);
          if (busyUntilMs <= clock.nowMs()) obey(message);
          else {
            clock.after(busyUntilMs - clock.nowMs(), () => {
              if (mine === generation && !hung) obey(message);
            });
          }
        },
        close: () => {
          if (mine === generation) inlet = null;
        },
      });
      inlet.receive({ epoch, messages: [{ message: { $case: "hello", value: hello() } }] });
      clock.after(2_000, () => beat(mine));
    },
    disconnect() {
      const old = inlet;
      generation++;
      inlet = null;
      old?.closed();
    },
    restart(keep) {
      daemon.disconnect();
      incarnation++;
      if (!keep) {
        daemon.actors.clear();
        daemon.jobs.clear();
        daemon.bundles.clear();
      }
      if (current !== null) daemon.connect(current);
    },
    say,
    alive(actorId) {
      const running = daemon.actors.get(actorId);
      if (running === undefined) return;
      const socket = `/tmp/a-${actorId}-${running.incarnation}.sock`;
      daemon.actors.set(actorId, { ...running, socket });
      say({
        $case: "actor",
        value: { actorId, incarnation: running.incarnation, state: { $case: "alive", value: { pid: running.pid, socket } } },
      });
    },
    die(actorId, death, creationFailure = Buffer.alloc(0)) {
      const running = daemon.actors.get(actorId);
      if (running === undefined) return;
      daemon.actors.delete(actorId);
      const report: ActorReport = {
        actorId,
        incarnation: running.incarnation,
        state: { $case: "gone", value: { death: deathOf(running.pid, death), creationFailure } },
      };
      endedActors.push(report);
      say({ $case: "actor", value: report });
    },
    driverEnds: (jobId, exitCode) => ended(jobId, { exitCode, message: "", stopped: false }),
    hang() {
      hung = true;
    },
  };
  return daemon;
}
