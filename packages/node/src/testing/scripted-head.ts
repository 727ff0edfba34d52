import { Server, ServerCredentials, type ServerDuplexStream } from "@grpc/grpc-js";
import {
  ControlServiceService,
  type NodeDown,
  type NodeDownBatch,
  type NodeHello,
  type NodeUp,
  type NodeUpBatch,
} from "@slime/rpc/control";

type Message<K extends NonNullable<NodeUp["message"]>["$case"]> = Extract<NonNullable<NodeUp["message"]>, { readonly $case: K }>["value"];
type Stream = ServerDuplexStream<NodeUpBatch, NodeDownBatch>;

/** A head that says what a test tells it to, over real gRPC: for tests of daemons. It keeps every message it heard. */
export interface ScriptedHead extends AsyncDisposable {
  readonly address: string;
  readonly heard: readonly NodeUp[];
  /** The newest hello of a node, once there is one since `after` hellos. */
  readonly hellos: readonly NodeHello[];
  readonly send: (nodeId: string, message: NonNullable<NodeDown["message"]>) => void;
  /** All messages of one kind heard so far. */
  readonly all: <K extends NonNullable<NodeUp["message"]>["$case"]>(kind: K) => readonly Message<K>[];
  /** Ends every stream. */
  readonly cut: () => void;
}

export interface ScriptedHeadOptions {
  readonly clusterId: string;
  /** 0: any. */
  readonly port?: number;
  readonly epoch?: number;
  readonly heartbeatMs?: number;
  /** Answers a hello with a failure instead of a welcome. */
  readonly refuse?: (hello: NodeHello) => Buffer | null;
}

export async function scriptedHead(options: ScriptedHeadOptions): Promise<ScriptedHead> {
  const epoch = options.epoch ?? 1;
  const heard: NodeUp[] = [];
  const hellos: NodeHello[] = [];
  const streams = new Map<string, Stream>();
  const open = new Set<Stream>();
  const write = (stream: Stream, message: NonNullable<NodeDown["message"]>) => void stream.write({ epoch, messages: [{ message }] });
  const welcome = {
    clusterId: options.clusterId,
    epoch,
    heartbeatMs: options.heartbeatMs ?? 200,
    nodeSilenceMsMax: 15_000,
    eventsEndpoint: "",
    httpAddress: "127.0.0.1:1",
  };
  const receive = (stream: Stream, up: NodeUp) => {
    heard.push(up);
    const message = up.message;
    if (message?.$case === "heartbeat") write(stream, { $case: "ack", value: { sequence: message.value.sequence } });
    if (message?.$case !== "hello") return;
    hellos.push(message.value);
    const refusal = options.refuse?.(message.value) ?? null;
    if (refusal !== null) return write(stream, { $case: "refused", value: { failure: refusal } });
    streams.set(message.value.nodeId, stream);
    write(stream, { $case: "welcome", value: welcome });
  };
  const server = new Server();
  const unimplemented = (_call: unknown, reply: (error: Error) => void) => reply(new Error("a scripted head does not do this"));
  server.addService(ControlServiceService, {
    nodeLink(stream: Stream) {
      open.add(stream);
      stream.on("data", (batch: NodeUpBatch) => {
        for (const up of batch.messages) receive(stream, up);
      });
      stream.on("end", () => stream.end());
      stream.on("close", () => open.delete(stream));
      stream.on("error", () => open.delete(stream));
    },
    clientLink: (stream: { readonly end: () => void }) => stream.end(),
    getStatus: (_call: unknown, reply: (error: null, value: object) => void) =>
      reply(null, { statusJson: Buffer.from(JSON.stringify({ version: 1, cluster_id: options.clusterId })) }),
    stopNode: unimplemented,
    stopHead: unimplemented,
  });
  const port = await new Promise<number>((resolve, reject) =>
    server.bindAsync(`127.0.0.1:${options.port ?? 0}`, ServerCredentials.createInsecure(), (error, bound) =>
      error === null ? resolve(bound) : reject(error),
    ),
  );
  return {
    address: `127.0.0.1:${port}`,
    heard,
    hellos,
    send(nodeId, message) {
      const stream = streams.get(nodeId);
      if (stream === undefined) throw new Error(`${nodeId} has not said hello`);
      write(stream, message);
    },
    all: <K extends NonNullable<NodeUp["message"]>["$case"]>(kind: K) =>
      heard.flatMap(({ message }) => (message?.$case === kind ? [message.value as Message<K>] : [])),
    cut() {
      for (const stream of open) stream.end();
    },
    async [Symbol.asyncDispose]() {
      server.forceShutdown();
    },
  };
}
