import { SlimeError, seededRandom } from "@slime/core";
import { keptLog, virtualClock } from "@slime/core/testing";
import { toFailure } from "@slime/rpc";
import type { ActorInfo, ActorSpec, ClientDown, ClientDownBatch, ClientUp, ClientUpBatch } from "@slime/rpc/control";
import { describe, expect, it } from "vitest";
import type { ActorView } from "../actor-view.js";
import { controlClient } from "./control-client.js";
import type { ControlLinkEvents } from "./control-link.js";

/** A head in memory: streams as they come, what was said on each, answers as the test gives them. */
function fakeHead(jobId: string | null = null) {
  const clock = virtualClock();
  const { log, lines } = keptLog();
  const streams: { readonly events: ControlLinkEvents; readonly batches: ClientUpBatch[]; ended: boolean }[] = [];
  const client = controlClient({
    dialer: {
      address: "test:1",
      open(events) {
        const stream = { events, batches: [] as ClientUpBatch[], ended: false };
        streams.push(stream);
        return { write: (batch) => void stream.batches.push(batch), end: () => (stream.ended = true) };
      },
      close() {},
    },
    hello: { protocol: 1, clusterId: "", jobId, actorId: "", pid: 1, version: "t", nodeId: "", bootId: "" },
    exitCode: () => 3,
    clock,
    random: seededRandom(1),
    log,
  });
  const last = () => streams.at(-1) as (typeof streams)[number];
  const say = (epoch: number, ...messages: ClientDown[]) => last().events.onBatch({ epoch, messages } satisfies ClientDownBatch);
  const welcome = (epoch: number, job = "job_1") =>
    say(epoch, {
      id: 1,
      reply: { $case: "welcome", value: { clusterId: "cluster_1", epoch, jobId: job, nodeId: "", httpAddress: "h", eventsEndpoint: "e" } },
    });
  const asked = (): ClientUp[] => last().batches.flatMap(({ messages }) => messages);
  const kinds = () => asked().map(({ request }) => request?.$case);
  return { client, clock, streams, last, say, welcome, asked, kinds, lines };
}

const spec = { actorId: "actor_1", jobId: "job_1" } as ActorSpec;
const info = (state: string, incarnation = 0): ActorInfo => ({
  actorId: "actor_1",
  state,
  incarnation,
  socket: "",
  nodeId: "",
  className: "C",
  name: "",
  death: undefined,
  creationFailure: Buffer.alloc(0),
  waiting: [],
  jobId: "job_1",
  pid: 0,
  restarts: 0,
});
const actorReply = (id: number, state: string, incarnation = 0): ClientDown => ({
  id,
  reply: { $case: "actor", value: info(state, incarnation) },
});
const turn = () => new Promise((resolve) => setImmediate(resolve));

describe("the link to the head", () => {
  it("says hello first, then everything of a turn in one batch", async () => {
    const head = fakeHead();
    const made = [head.client.createActor(spec), head.client.nodes()];
    expect(head.kinds()).toEqual(["hello"]);
    head.welcome(4);
    await turn();
    expect(head.last().batches.map(({ epoch, messages }) => [epoch, messages.length])).toEqual([
      [0, 1],
      [4, 2],
    ]);
    const [, create, list] = head.asked();
    head.say(4, actorReply(create?.id ?? 0, "PENDING_CREATION"), { id: list?.id ?? 0, reply: { $case: "nodes", value: { nodes: [] } } });
    expect(await made[0]).toMatchObject({ state: "PENDING_CREATION", socket: null, death: null });
    expect(await made[1]).toEqual([]);
    expect((await head.client.welcome()).jobId).toBe("job_1");
  });

  it("L1, L2, L4: after a break, requests and followers are said again with the same job", async () => {
    const head = fakeHead();
    head.welcome(4);
    const seen: ActorView[] = [];
    head.client.followActor("actor_1", (view) => seen.push(view));
    const create = head.client.createActor(spec);
    await turn();
    head.last().events.onEnd("the head died");
    await head.clock.run(1_000);
    expect(head.streams).toHaveLength(2);
    expect(head.asked()[0]?.request).toMatchObject({ $case: "hello", value: { jobId: "job_1", clusterId: "cluster_1" } });
    head.welcome(5, "job_other");
    await turn();
    expect(head.kinds().slice(1)).toEqual(["resolveActor", "createActor", "resolveActor"]);
    const again = head.asked().find(({ request }) => request?.$case === "createActor");
    head.say(5, actorReply(again?.id ?? 0, "ALIVE", 1));
    expect(await create).toMatchObject({ state: "ALIVE", incarnation: 1 });
    expect(seen.map(({ state }) => state)).toEqual(["ALIVE"]);
    head.say(5, { id: 0, reply: { $case: "actor", value: info("RESTARTING", 1) } });
    expect(seen.at(-1)?.state).toBe("RESTARTING");
  });

  it("L3: a batch of an older head is dropped", async () => {
    const head = fakeHead();
    head.welcome(4);
    const seen: string[] = [];
    head.client.followActor("actor_1", (view) => seen.push(view.state));
    head.say(3, { id: 0, reply: { $case: "actor", value: info("DEAD") } });
    expect(seen).toEqual([]);
    expect(head.lines).toContainEqual(expect.objectContaining({ event: "control.stale" }));
  });

  it("a head that stays away fails requests at their deadline, with what to do", async () => {
    const head = fakeHead();
    const failed = head.client.nodes({ timeoutMs: 5_000 }).catch((error: unknown) => error);
    head.last().events.onEnd("connection refused");
    await head.clock.run(6_000);
    expect(head.streams).toHaveLength(2);
    await head.clock.run(20_000);
    expect(await failed).toMatchObject({ code: "head.unavailable" });
    expect(((await failed) as Error).message).toContain("slime-head start");
    // The second stream was taken but never welcomed.
    expect(head.streams.length).toBeGreaterThan(2);
  });

  it("failures keep their code; an unknown actor reads as dead", async () => {
    const head = fakeHead();
    head.welcome(4);
    const seen: ActorView[] = [];
    const failed = head.client.kvGet("k").catch((error: unknown) => error);
    head.client.followActor("actor_9", (view) => seen.push(view));
    await turn();
    const failure = (code: "not_found") =>
      Buffer.from(JSON.stringify(toFailure(new SlimeError(code, "no such thing", { kind: "actor", id: "actor_9" }))));
    for (const { id } of head.asked().slice(1)) head.say(4, { id, reply: { $case: "failure", value: failure("not_found") } });
    expect(await failed).toMatchObject({ code: "not_found", details: { id: "actor_9" } });
    await turn();
    expect(seen).toMatchObject([{ state: "DEAD", actorId: "actor_9" }]);
  });

  it("a refusal is final; nothing dials again", async () => {
    const head = fakeHead();
    const welcome = head.client.welcome().catch((error: unknown) => error);
    head.say(0, {
      id: 1,
      reply: {
        $case: "failure",
        value: Buffer.from(JSON.stringify(toFailure(new SlimeError("peer.incompatible", "another cluster", { ours: "a", theirs: "b" })))),
      },
    });
    expect(await welcome).toMatchObject({ code: "peer.incompatible" });
    await head.clock.run(10_000);
    expect(head.streams).toHaveLength(1);
    await expect(head.client.nodes()).rejects.toMatchObject({ code: "peer.incompatible" });
  });

  it("an interactive job says goodbye with its exit code; a job's own driver does not", async () => {
    const head = fakeHead();
    head.welcome(4);
    await head.client.close();
    expect(head.asked().at(-1)?.request).toEqual({ $case: "goodbye", value: { exitCode: 3 } });
    const driver = fakeHead("job_7");
    driver.welcome(4, "job_7");
    await driver.client.close();
    expect(driver.kinds()).toEqual(["hello"]);
    expect(driver.last().ended).toBe(true);
  });
});
