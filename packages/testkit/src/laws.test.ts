import { describe, expect, test } from "vitest";
import { type SimulatedCluster, simulatedCluster } from "./cluster.js";
import { chaos } from "./index.js";

/** A job with an actor on the only GPU of n1, at rest. */
async function working(): Promise<SimulatedCluster> {
  const cluster = await simulatedCluster({ seed: 1, nodes: 1, gpus: 1 });
  const submitted = cluster.submit({ name: "j1" });
  await cluster.run(100);
  await submitted;
  const created = cluster.createActor({ name: "a1", job: "j1", resources: { GPU: 1 } });
  await cluster.run(500);
  await created;
  return cluster;
}

const stateOf = (cluster: SimulatedCluster) => {
  const { head } = cluster.head;
  if (head === null) throw new Error("there is no head");
  return head.state;
};

function actorOf(cluster: SimulatedCluster) {
  const process = cluster
    .machine("n1")
    .processes()
    .find((living) => living.actor !== null);
  if (process?.actor === null || process === undefined) throw new Error("no actor runs");
  return process.actor;
}

/** Each law notices when it is broken: what is never seen to fail proves nothing. */
describe("a broken law is noticed", () => {
  test("a cluster that works keeps all of them", async () => {
    const cluster = await working();
    cluster.laws.settled(stateOf(cluster));
    cluster.laws.remembered(stateOf(cluster));
    expect(cluster.laws.broken).toEqual([]);
  });

  test("L4: one incarnation lives twice; L5: one GPU is held twice", async () => {
    const cluster = await working();
    cluster.machine("n1").spawn({ processId: "proc_0000000000000bad", kind: "host", pid: 7, actor: actorOf(cluster), job: null });
    expect(cluster.laws.broken).toEqual([
      "L4 at 1650 ms: a1#1 begins on n1 while a1#1 lives on n1",
      "L5 at 1650 ms: GPU 0 of n1 is held 2 times by a1#1, a1#1",
    ]);
  });

  test("L4: an actor lives that the head knows nothing of", async () => {
    const cluster = await working();
    actorOf(cluster);
    cluster
      .machine("n1")
      .processes()
      .find((living) => living.actor !== null)
      ?.kill();
    cluster.laws.settled(stateOf(cluster));
    expect(cluster.laws.broken).toEqual([expect.stringMatching(/^L4 .*a1#1 is ALIVE on n1; there lives nothing$/)]);
  });

  test("L6: a disk that acknowledges before it writes", async () => {
    const cluster = await working();
    cluster.head.disk.lies = true;
    const put = cluster.put("j1", "step", "1");
    await cluster.run(50);
    await put;
    cluster.head.crash();
    cluster.head.start();
    await cluster.run(100);
    expect(cluster.laws.broken).toEqual([expect.stringMatching(/^L6 .*step = 1 was acknowledged; there is nothing$/)]);
  });

  test("L7: a stop that never ends", async () => {
    const cluster = await working();
    const { daemon } = cluster.machine("n1");
    if (daemon !== null) daemon.frozen = true;
    const { head } = cluster.head;
    head?.ask({ kind: "job.stop", jobId: cluster.names.idOf("j1"), graceMs: 0, waitMs: 1_000, reason: "asked" }).catch(() => {});
    await cluster.run(3_000);
    cluster.laws.settled(stateOf(cluster));
    expect(cluster.laws.broken).toEqual([expect.stringMatching(/^L7 .*j1 is still STOPPING: asked$/)]);
  });

  test("L8: words that are not stale do change something", async () => {
    const cluster = await working();
    cluster.whisperStale("n1", 0);
    expect(cluster.laws.broken).toEqual([expect.stringMatching(/^L8 /)]);
  });

  test("L9: something is left after a stop", async () => {
    const cluster = await working();
    const actor = actorOf(cluster);
    const stopped = cluster.head.ask({ kind: "cluster.stop", graceMs: 100, waitMs: 10_000 });
    await cluster.run(5_000);
    await stopped;
    cluster.laws.gone();
    expect(cluster.laws.broken).toEqual([]);
    cluster.machine("n1").spawn({ processId: "proc_0000000000000bad", kind: "host", pid: 7, actor, job: null });
    cluster.laws.gone();
    expect(cluster.laws.broken).toEqual([expect.stringMatching(/^L9 .*n1 still runs a1$/)]);
  });
});

describe("a simulated cluster", () => {
  test.each([3, 17, 58])("C1: seed %i gives the same trace and the same bytes each time", async (seed) => {
    const [one, two] = [await chaos({ seed }), await chaos({ seed })];
    expect(two.trace).toEqual(one.trace);
    expect(two.fingerprint).toBe(one.fingerprint);
  });

  test("other seeds give other lives", async () => {
    expect((await chaos({ seed: 1 })).fingerprint).not.toBe((await chaos({ seed: 2 })).fingerprint);
  });
});
