/**
 * What ends a cluster, or a part of it, leaves nothing of it: no process with its mark in /proc, no listening port, no sockets, no shared memory.
 * Everything is found by looking at the machine, never by a list of our own.
 */
import { existsSync, readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { until } from "@slime/platform/testing";
import { describe, expect, it, vi } from "vitest";
import { Cluster, Home, isAlive, isListening, listeningPorts, machinePaths, markedProcesses, sortRun, trainedCount } from "./cluster.js";

// A slow machine is given time; what has a bound asserts it.
vi.setConfig({ testTimeout: 120_000, hookTimeout: 120_000 });

/** What a cluster occupies while it lives. */
interface Occupied {
  readonly pids: readonly number[];
  readonly ports: readonly number[];
}

function occupied(clusterId: string, apps: readonly number[]): Occupied {
  const pids = [...new Set([...markedProcesses("SLIME_CLUSTER_ID", clusterId), ...apps])];
  return { pids, ports: listeningPorts(pids) };
}

/** Nothing of it is there any more. */
function expectNothingLeft(clusterId: string, before: Occupied): void {
  expect(markedProcesses("SLIME_CLUSTER_ID", clusterId)).toEqual([]);
  expect(before.pids.filter(isAlive)).toEqual([]);
  expect(before.ports.filter(isListening)).toEqual([]);
  expect(machinePaths(clusterId).filter(existsSync)).toEqual([]);
}

/** A long run that was submitted and has begun to train. */
async function training(cluster: Cluster, id: string): Promise<string> {
  const runDir = join(cluster.home.path, id);
  await cluster.submit(id, ["slime", "train", "--config", sortRun(cluster.home, id, { "num-rollout": 10_000 }), "--run-dir", runDir]);
  await until("a trained rollout", () => trainedCount(runDir) > 0, 30_000);
  return runDir;
}

describe("stops", () => {
  it("slime job stop: returns when the job's processes are gone and its GPUs free; slime-worker stop, slime-head stop: nothing is left", async () => {
    await using cluster = await Cluster.start([1, 1]);
    await training(cluster, "first");
    const { job_id } = await cluster.job("first");
    const ofJob = markedProcesses("SLIME_JOB_ID", job_id);
    expect(ofJob.length).toBeGreaterThanOrEqual(5); // driver, router, engine, worker, trainer
    const portsOfJob = listeningPorts(ofJob);
    expect(portsOfJob.length).toBeGreaterThanOrEqual(2); // router, engine
    expect(await cluster.home.slime("job", "stop", "first", "--address", cluster.httpAddress)).toMatchObject({ code: 0 });
    expect(markedProcesses("SLIME_JOB_ID", job_id)).toEqual([]);
    expect(ofJob.filter(isAlive)).toEqual([]);
    expect(portsOfJob.filter(isListening)).toEqual([]);
    expect((await cluster.nodes()).flatMap((node) => node.gpus.map((gpu) => gpu.held))).toEqual([0, 0]);
    expect(await cluster.job("first")).toMatchObject({ state: "STOPPED" });
    const [, store] = machinePaths(cluster.clusterId);
    expect(readdirSync(store ?? "").filter((name) => name.startsWith("job_"))).toEqual([]);

    // One of two workers goes while a run needs it: what ran there is gone, the other worker is not touched.
    await training(cluster, "second");
    const [gone, stays] = await cluster.nodes();
    if (gone === undefined || stays === undefined) throw new Error("there are two nodes");
    const ofNode = [...markedProcesses("SLIME_NODE_ID", gone.node_id), gone.pid];
    const portsOfNode = listeningPorts(ofNode);
    expect(ofNode.length).toBeGreaterThan(1);
    expect(await cluster.home.run("slime-worker", ["stop", gone.node_id])).toMatchObject({ code: 0 });
    expect(markedProcesses("SLIME_NODE_ID", gone.node_id)).toEqual([]);
    expect(ofNode.filter(isAlive)).toEqual([]);
    expect(portsOfNode.filter(isListening)).toEqual([]);
    expect((await cluster.nodes()).find((node) => node.node_id === gone.node_id)).toMatchObject({ state: "LEFT" });
    expect((await cluster.nodes()).find((node) => node.node_id === stays.node_id)).toMatchObject({ state: "ALIVE", pid: stays.pid });

    const before = occupied(cluster.clusterId, [cluster.head.pid, ...cluster.workers.map((worker) => worker.pid)]);
    expect(before.ports.length).toBeGreaterThanOrEqual(2); // control plane, jobs and state
    expect(await cluster.home.run("slime-head", ["stop"])).toMatchObject({ code: 0 });
    expectNothingLeft(cluster.clusterId, before);
    expect(await cluster.head.ended).toMatchObject({ code: 0 });
  });

  it("Ctrl-C of slime quickstart in the middle of training ends its cluster", async () => {
    await using home = new Home();
    const root = join(home.path, "run");
    const quickstart = home.start("slime", [
      "quickstart",
      "--config",
      sortRun(home, "quick", { "num-rollout": 10_000 }),
      "--run-dir",
      root,
    ]);
    await until(
      "a trained rollout",
      () => {
        if (quickstart.process.exitCode !== null) throw new Error(`quickstart ended: ${quickstart.out()}${quickstart.err()}`);
        return trainedCount(root) > 0;
      },
      40_000,
    );
    const { clusterId } = JSON.parse(readFileSync(join(root, "cluster/head/head.json"), "utf8")) as { readonly clusterId: string };
    const apps = markedProcesses("SLIME_HOME", join(root, "cluster"));
    const before = occupied(clusterId, [quickstart.pid, ...apps]);
    expect(before.pids.length).toBeGreaterThanOrEqual(9); // quickstart, head, two workers, driver, router, engine, worker, trainer
    quickstart.process.kill("SIGINT");
    const { code, out } = await quickstart.ended;
    expect(code).toBe(130);
    expect(out).toMatch(/stopping: ending the job and the cluster/);
    expectNothingLeft(clusterId, before);
  });
});
