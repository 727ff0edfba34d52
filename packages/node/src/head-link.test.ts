import { randomUUID } from "node:crypto";
import { SlimeError, seededRandom, silentLogger, systemClock } from "@slime/core";
import { until } from "@slime/platform/testing";
import { toFailure } from "@slime/rpc";
import { type Heartbeat, type NodeDown, NodeHello } from "@slime/rpc/control";
import { afterEach, describe, expect, it } from "vitest";
import { type HeadLink, headLink } from "./head-link.js";
import { checkHeadAddress, clusterAt, waitForCluster } from "./join.js";
import { actorUp } from "./reports.js";
import { scriptedHead } from "./testing/index.js";

const nodeHello: NodeHello = { ...NodeHello.decode(Buffer.alloc(0)), nodeId: "node_0000000000000001" };
const links: HeadLink[] = [];
afterEach(async () => {
  for (const link of links.splice(0)) await link.close();
});

function linkTo(address: string) {
  const seen = { welcomes: 0, downs: 0, messages: [] as NodeDown[], refused: null as SlimeError | null };
  const link = headLink({
    address,
    clock: systemClock,
    random: seededRandom(1),
    log: silentLogger,
    hello: () => nodeHello,
    heartbeat: (sequence): Heartbeat => ({ sequence, loopLagMs: 0, memoryFreeMib: 0, cpuFraction: 0, storeBytesUsed: 0, gpus: [] }),
    onWelcome: () => void seen.welcomes++,
    onMessage: (down) => void seen.messages.push(down),
    onRefused: (error) => void (seen.refused = error),
    onDown: () => void seen.downs++,
  });
  links.push(link);
  return { link, seen };
}
const report = (actorId: string) => actorUp({ actorId, incarnation: 1, state: { $case: "starting", value: { pid: 1 } } });
const clusterId = "cluster_0000000000000001";

describe("the link to the head", () => {
  it("sends a turn's messages in one batch, beats, and comes back after a cut", async () => {
    await using head = await scriptedHead({ clusterId, heartbeatMs: 20 });
    const { link, seen } = linkTo(head.address);
    link.send(report("too early")); // L1
    await until("welcome", () => link.connected());
    link.send(report("a"));
    link.send(report("b"));
    await until("reports", () => head.all("actor").length === 2);
    expect(head.all("actor").map((actor) => actor.actorId)).toEqual(["a", "b"]);
    await until("heartbeats", () => head.all("heartbeat").length > 2);
    head.cut();
    await until("a second welcome", () => seen.welcomes === 2);
    expect(head.hellos.length).toBe(2);
  });
  it("what is reported between the hello and its welcome follows the hello (L1)", async () => {
    const written: string[] = [];
    const link = headLink({
      address: "memory",
      dial: () => ({
        ready: async () => {},
        open: () => ({
          write: (batch) => written.push(...batch.messages.map(({ message }) => message?.$case ?? "")),
          end() {},
          cancel() {},
          onData() {},
          onOver() {},
          onClose: (hear) => hear(),
        }),
        close() {},
      }),
      endOfTurn: queueMicrotask,
      clock: systemClock,
      random: seededRandom(1),
      log: silentLogger,
      hello: () => nodeHello,
      heartbeat: (sequence): Heartbeat => ({ sequence, loopLagMs: 0, memoryFreeMib: 0, cpuFraction: 0, storeBytesUsed: 0, gpus: [] }),
      onWelcome() {},
      onMessage() {},
      onRefused() {},
      onDown() {},
    });
    await until("hello", () => written.length === 1);
    link.send(report("a"));
    await until("report", () => written.length === 2);
    expect(written).toEqual(["hello", "actor"]);
    await link.close();
  });
  it("drops what an older head says (L2)", async () => {
    const old = await scriptedHead({ clusterId, epoch: 5 });
    const { link, seen } = linkTo(old.address);
    await until("welcome", () => link.connected());
    await old[Symbol.asyncDispose]();
    await using stale = await scriptedHead({ clusterId, epoch: 4, port: Number(old.address.split(":")[1]) });
    await until("hello", () => stale.hellos[0]);
    expect([seen.welcomes, link.connected()]).toEqual([1, false]);
  });
  it("ends when it is refused, with the head's reason", async () => {
    const failure = Buffer.from(
      JSON.stringify(toFailure(new SlimeError("peer.incompatible", "speaks another protocol", { ours: "1", theirs: "2" }))),
    );
    await using head = await scriptedHead({ clusterId, refuse: () => failure });
    const { seen } = linkTo(head.address);
    const error = await until("the refusal", () => seen.refused);
    expect([error.code, error.message]).toEqual(["peer.incompatible", "[peer.incompatible] speaks another protocol"]);
  });
});

describe("joining", () => {
  it("asks a head for its cluster, and says what to run when there is none", async () => {
    await using head = await scriptedHead({ clusterId });
    expect(await clusterAt(head.address, 2_000, systemClock)).toBe(clusterId);
    await expect(waitForCluster("127.0.0.1:1", 50, systemClock, silentLogger)).rejects.toThrow(/slime-head start/);
  });
  it.each([
    ["127.0.0.1:6380", null],
    ["localhost:6380", null],
    ["[::1]:6380", null],
    ["head:6380", "address.refused"],
    ["0.0.0.0:6380", "address.refused"],
    ["127.0.0.1", "usage"],
    ["127.0.0.1:0", "usage"],
    ["127.0.0.1:99999", "usage"],
    [randomUUID(), "usage"],
  ])("takes or refuses %s", (address, code) => {
    const check = () => checkHeadAddress(address);
    if (code === null) expect(check()).toBe(address);
    else expect(check).toThrow(expect.objectContaining({ code }));
  });
});
