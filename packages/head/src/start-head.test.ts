import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { credentials } from "@grpc/grpc-js";
import { seededRandom, silentLogger, systemClock } from "@slime/core";
import { type ClientDownBatch, ControlServiceClient, type NodeDownBatch } from "@slime/rpc/control";
import { afterEach, beforeEach, expect, test } from "vitest";
import { controlProtocol, type RunningHead, startHead } from "./index.js";
import { specOf } from "./testing/index.js";

let stateDirectory = "";
beforeEach(async () => {
  stateDirectory = await mkdtemp(join(tmpdir(), "slime-start-head-"));
});
afterEach(() => rm(stateDirectory, { recursive: true, force: true }));

const options = (overrides: object = {}) => ({
  host: "127.0.0.1",
  port: 0,
  httpPort: 0,
  nodeIp: "127.0.0.1",
  stateDirectory,
  version: "0.1.0",
  ...overrides,
});
const start = (onStop: (reason: string) => void = () => {}): Promise<RunningHead> =>
  startHead(options(), { clock: systemClock, random: seededRandom(4), log: silentLogger, onStop });

/** The batches of a stream, one at a time. */
function batches<B>(stream: AsyncIterable<B>): () => Promise<B> {
  const iterator = stream[Symbol.asyncIterator]();
  return async () => {
    const { value, done } = await iterator.next();
    if (done === true) throw new Error("the stream ended");
    return value as B;
  };
}

test("over gRPC, LMDB and HTTP: a node joins, a client's actor starts on it; the next life has it all, one epoch on", async () => {
  const head = await start();
  const client = new ControlServiceClient(head.address, credentials.createInsecure());
  const node = client.nodeLink();
  node.on("error", () => {});
  const down = batches<NodeDownBatch>(node);
  node.write({
    epoch: 0,
    messages: [
      {
        message: {
          $case: "hello",
          value: {
            protocol: controlProtocol,
            clusterId: "",
            nodeId: "node_0000000000000001",
            incarnation: 1,
            hostname: "h",
            address: "127.0.0.1",
            bootId: "b",
            pid: 1,
            version: "0.1.0",
            resources: { CPU: 40_000 },
            gpus: [],
            labels: {},
            nodeSocket: "/tmp/n",
            actors: [],
            jobs: [],
            bundles: [],
            logDir: "",
            endedActors: [],
            endedJobs: [],
          },
        },
      },
    ],
  });
  expect(await down()).toMatchObject({
    epoch: 1,
    messages: [{ message: { $case: "welcome", value: { clusterId: head.head.clusterId, epoch: 1, httpAddress: head.httpAddress } } }],
  });
  const driver = client.clientLink();
  driver.on("error", () => {});
  const replies = batches<ClientDownBatch>(driver);
  driver.write({
    epoch: 0,
    messages: [
      {
        id: 1,
        request: {
          $case: "hello",
          value: { protocol: controlProtocol, clusterId: "", jobId: "", actorId: "", pid: 2, version: "0.1.0", nodeId: "", bootId: "b" },
        },
      },
    ],
  });
  const welcome = (await replies()).messages[0]?.reply;
  const jobId = welcome?.$case === "welcome" ? welcome.value.jobId : "";
  // Two requests of one turn travel, and are answered, as one batch.
  const spec = specOf({ actorId: "actor_0000000000000001", jobId });
  driver.write({
    epoch: 1,
    messages: [
      { id: 2, request: { $case: "createActor", value: { spec } } },
      { id: 3, request: { $case: "kvPut", value: { key: "k", value: Buffer.from("v"), ifAbsent: false } } },
    ],
  });
  expect((await replies()).messages.map((message) => message.id).filter((id) => id !== 0)).toEqual([2, 3]);
  expect((await down()).messages[0]?.message).toMatchObject({ $case: "startActor", value: { incarnation: 1 } });
  const status = await new Promise<string>((resolve, reject) =>
    client.getStatus({}, (error, response) => (error === null ? resolve(response.statusJson.toString()) : reject(error))),
  );
  expect(JSON.parse(status)).toMatchObject({ epoch: 1, actors: [{ state: "PENDING_CREATION" }] });
  expect(((await (await fetch(`http://${head.httpAddress}/api/status`)).json()) as { actors: unknown[] }).actors).toHaveLength(1);
  client.close();
  await head.close();
  const next = await start();
  expect(next.head).toMatchObject({ epoch: 2, clusterId: head.head.clusterId });
  expect(next.head.state.actors.get("actor_0000000000000001")).toMatchObject({ state: "PENDING_CREATION", incarnation: 1 });
  await next.close();
});

test("stops over gRPC, and tells the app", async () => {
  let reason = "";
  const head = await start((why) => {
    reason = why;
  });
  const client = new ControlServiceClient(head.address, credentials.createInsecure());
  await new Promise<void>((resolve, reject) =>
    client.stopHead({ graceMs: 100, leaveNodes: false }, (error) => (error === null ? resolve() : reject(error))),
  );
  while (reason === "") await new Promise((resolve) => setImmediate(resolve));
  expect(reason).toBe("asked to end the cluster");
  client.close();
  await head.close();
});

test("anything but loopback is refused with the reason; a taken port names itself; a failed start leaves nothing listening", async () => {
  for (const overrides of [{ host: "0.0.0.0" }, { host: "10.1.2.3" }, { nodeIp: "10.1.2.3" }]) {
    await expect(
      startHead(options(overrides), { clock: systemClock, random: seededRandom(4), log: silentLogger, onStop: () => {} }),
    ).rejects.toMatchObject({ code: "address.refused", message: expect.stringContaining("TLS") as string });
  }
  const head = await start();
  const taken = Number(head.httpAddress.split(":")[1]);
  await expect(
    startHead(
      { ...options({ httpPort: taken }), stateDirectory: join(stateDirectory, "other") },
      { clock: systemClock, random: seededRandom(4), log: silentLogger, onStop: () => {} },
    ),
  ).rejects.toMatchObject({ code: "port.taken", details: { port: taken } });
  await head.close();
});
