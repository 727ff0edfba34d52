import { readFileSync } from "node:fs";
import { jobOutputKey } from "@slime/rpc";
import { expect, test } from "vitest";
import { reduce } from "../reduce/reduce.js";
import { headState } from "../state/head-state.js";
import type { HeadInput } from "../state/inputs.js";
import { specOf } from "../testing/index.js";
import { jobJson, statusJson } from "./state-json.js";

const golden = (name: string): unknown =>
  JSON.parse(readFileSync(new URL(`../../../../test/golden/${name}.json`, import.meta.url), "utf8"));

/** A small cluster made by the reducer alone, at fixed times: one node, one job, an actor that runs, one that waits, a group that died. */
export function example() {
  const state = headState(
    {
      clusterId: "cluster_00000000000000c1",
      epoch: 2,
      address: "127.0.0.1:6380",
      httpAddress: "127.0.0.1:8265",
      eventsEndpoint: "tcp://127.0.0.1:7000",
    },
    { startedAtMs: 1_700_000_000_000, graceUntilHeadMs: 0 },
  );
  const [nodeId, jobId, running, waiting, dead, group] = [
    "node_0000000000000001",
    "job_0000000000000001",
    "actor_0000000000000001",
    "actor_0000000000000002",
    "actor_0000000000000003",
    "pg_0000000000000001",
  ] as const;
  let nowMs = 0;
  const feed = (input: HeadInput) => {
    nowMs += 10;
    return reduce(state, input, { nowMs, wallMs: 1_700_000_000_000 + nowMs });
  };
  const say = (message: Extract<HeadInput, { kind: "node.message" }>["message"]) =>
    feed({ kind: "node.message", link: "n1", nodeId, message });
  const ask = (request: Extract<HeadInput, { kind: "client.request" }>["request"]) =>
    feed({ kind: "client.request", session: "c1", id: 1, request });
  const gpu = { index: 0, uuid: "GPU-virtual-0", name: "virtual GPU", memoryMib: 0, virtual: true };
  feed({
    kind: "node.hello",
    link: "n1",
    epoch: 0,
    hello: {
      protocol: 1,
      clusterId: "",
      nodeId,
      incarnation: 1,
      hostname: "laptop",
      address: "127.0.0.1",
      bootId: "b",
      pid: 100,
      version: "0.1.0",
      resources: { CPU: 80_000, memory: 10_240_000, GPU: 10_000 },
      gpus: [gpu],
      labels: { zone: "a" },
      nodeSocket: "/tmp/n.sock",
      actors: [],
      jobs: [],
      bundles: [],
      logDir: "/var/log/slime",
      endedActors: [],
      endedJobs: [],
    },
  });
  feed({
    kind: "job.submit",
    token: 1,
    job: {
      spec: {
        jobId,
        submissionId: "train-1",
        entrypoint: "slime train --config run.yaml",
        env: { A: "1" },
        cwd: "/work",
        metadata: { owner: "me" },
        resources: { CPU: 10_000 },
        attemptsMax: 2,
      },
      requestHash: "h",
      runtimeEnv: { env_vars: { A: "1" } },
    },
  });
  say({
    $case: "job",
    value: { jobId, attempt: 1, state: { $case: "running", value: { pid: 200, logPath: "/var/log/slime/driver.log" } } },
  });
  feed({
    kind: "client.hello",
    session: "c1",
    id: 1,
    newJobId: "",
    hello: { protocol: 1, clusterId: "", jobId, actorId: "", pid: 200, version: "0.1.0", nodeId: "", bootId: "b" },
  });
  ask({
    $case: "createPlacementGroup",
    value: { placementGroupId: group, jobId, strategy: "PACK", name: "train", bundles: [{ resources: { GPU: 10_000, CPU: 10_000 } }] },
  });
  for (const step of ["prepare", "commit"])
    say({ $case: "bundles", value: { placementGroupId: group, generation: 1, step, failure: Buffer.alloc(0) } });
  ask({
    $case: "createActor",
    value: {
      spec: specOf({
        actorId: running,
        jobId,
        name: "trainer-0",
        className: "ActorTrainer",
        placementGroupId: group,
        bundleIndex: 0,
        resources: { GPU: 4_000 },
      }),
    },
  });
  say({
    $case: "actor",
    value: { actorId: running, incarnation: 1, state: { $case: "alive", value: { pid: 300, socket: "/tmp/a.sock" } } },
  });
  say({
    $case: "actor",
    value: { actorId: running, incarnation: 1, state: { $case: "phase", value: { phase: "trainStep", waitingFor: "" } } },
  });
  ask({
    $case: "createActor",
    value: { spec: specOf({ actorId: waiting, jobId, name: "engine-0", className: "RolloutEngine", resources: { GPU: 10_000 } }) },
  });
  ask({ $case: "createActor", value: { spec: specOf({ actorId: dead, jobId, name: "worker-0", className: "RolloutWorker" }) } });
  say({
    $case: "actor",
    value: {
      actorId: dead,
      incarnation: 1,
      state: {
        $case: "gone",
        value: {
          creationFailure: Buffer.alloc(0),
          death: {
            reason: "WORKER_DIED",
            message: "it was killed by SIGKILL, out of memory",
            pid: 301,
            signal: "SIGKILL",
            oom: true,
            stderrTail: ["Killed"],
            nodeId,
            atMs: 1_700_000_000_500,
          },
        },
      },
    },
  });
  say({
    $case: "heartbeat",
    value: {
      sequence: 1,
      loopLagMs: 1.5,
      memoryFreeMib: 512,
      cpuFraction: 0.25,
      storeBytesUsed: 0,
      gpus: [{ index: 0, utilisation: 0.5, memoryUsedMib: 128, powerWatts: 70 }],
    },
  });
  ask({ $case: "reportPhase", value: { jobId, phase: "rollout 3", waitingFor: "engine-0" } });
  ask({ $case: "kvPut", value: { key: jobOutputKey(jobId), value: Buffer.from("/data/outputs/train-1"), ifAbsent: false } });
  return { state, jobId, nowMs: nowMs + 5 };
}

test("job and status JSON equal their golden files", () => {
  const { state, jobId, nowMs } = example();
  const job = state.jobs.get(jobId);
  if (job === undefined) throw new Error("no job");
  expect(JSON.parse(JSON.stringify(jobJson(state, job)))).toEqual(golden("job"));
  expect(JSON.parse(JSON.stringify(statusJson(state, { nowMs, readOnly: null })))).toEqual(golden("status"));
});
