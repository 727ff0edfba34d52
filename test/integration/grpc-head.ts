import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import { silentLogger, systemClock, systemRandom } from "@slime/core";
import { memoryDisk, memoryStore, openHead, type Head } from "@slime/head";
import { ControlServiceService, type ClientDown, type ClientUpBatch, type NodeDown, type NodeUpBatch } from "@slime/rpc/control";
import { keptEvents } from "@slime/telemetry/testing";

/** The head's own logic behind real gRPC, in this process: it can die and come back on the same port with what it had made durable. */
export interface GrpcHead extends AsyncDisposable {
  readonly address: string;
  readonly clusterId: string;
  readonly kill: () => Promise<void>;
  readonly restart: () => Promise<void>;
}

interface Inlet<Up> {
  readonly receive: (batch: Up) => void;
  readonly closed: () => void;
}

/** Joins one gRPC stream to the head. */
function join<Up, Message>(stream: ServerDuplexStream<Up, { epoch: number; messages: Message[] }>, epoch: number, open: (outlet: { send: (message: Message) => void; close: () => void }) => Inlet<Up>): void {
  const inlet = open({ send: (message) => void stream.write({ epoch, messages: [message] }), close: () => stream.end() });
  stream.on("data", (batch: Up) => inlet.receive(batch));
  stream.on("end", () => stream.end());
  stream.on("error", () => undefined);
  stream.on("close", () => inlet.closed());
}

export async function grpcHead(): Promise<GrpcHead> {
  const disk = memoryDisk();
  let port = 0;
  let head: Head | null = null;
  let server: Server | null = null;

  const start = async () => {
    const opened = await openHead({ store: memoryStore(disk, async () => undefined), clock: systemClock, random: systemRandom, log: silentLogger, events: keptEvents().sink });
    const listening = new Server();
    const none = (_call: unknown, reply: (error: Error) => void) => reply(new Error("not in this test"));
    listening.addService(ControlServiceService, {
      nodeLink: (stream: ServerDuplexStream<NodeUpBatch, { epoch: number; messages: NodeDown[] }>) => join(stream, opened.epoch, opened.openNode),
      clientLink: (stream: ServerDuplexStream<ClientUpBatch, { epoch: number; messages: ClientDown[] }>) => join(stream, opened.epoch, opened.openClient),
      getStatus: (_call: unknown, reply: (error: null, value: object) => void) => reply(null, { statusJson: Buffer.from(JSON.stringify({ version: 1, cluster_id: opened.clusterId })) }),
      stopNode: none,
      stopHead: none,
    });
    port = await new Promise<number>((resolve, reject) => listening.bindAsync(`127.0.0.1:${port}`, ServerCredentials.createInsecure(), (error, bound) => (error === null ? resolve(bound) : reject(error))));
    opened.announce({ address: `127.0.0.1:${port}`, httpAddress: "127.0.0.1:1", eventsEndpoint: "" });
    head = opened;
    server = listening;
    return opened.clusterId;
  };
  const kill = async () => {
    server?.forceShutdown();
    await head?.close();
    head = null;
    server = null;
  };
  const clusterId = await start();
  return { address: `127.0.0.1:${port}`, clusterId, kill, restart: async () => void (await start()), [Symbol.asyncDispose]: kill };
}
