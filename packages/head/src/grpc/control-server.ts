/**
 * The control plane over gRPC: one bidirectional stream per daemon and per client, all messages of an event-loop turn in one batch; unary calls for administration.
 * Listens on loopback only: `startHead` refuses anything else.
 */
import { Server, ServerCredentials, type ServerDuplexStream, type ServiceError, type sendUnaryData, status } from "@grpc/grpc-js";
import { factsOf, type Logger, SlimeError } from "@slime/core";
import { toFailure } from "@slime/rpc";
import {
  type ClientDown,
  type ClientDownBatch,
  type ClientUpBatch,
  type ControlServiceServer,
  ControlServiceService,
  type NodeDown,
  type NodeDownBatch,
  type NodeUpBatch,
} from "@slime/rpc/control";
import type { Head, Outlet } from "../head-api.js";

/** Largest message either way: an actor's constructor arguments travel in one. */
export const controlBytesMax = 64 * 1_048_576;
/** Batches that may wait for a peer that does not read; then its stream is cut, and its next hello settles everything. */
const batchesWaitingMax = 10_000;
/** Messages in one batch at most. */
const batchMax = 1_000;

export interface ControlServerOptions {
  readonly host: string;
  readonly port: number;
  readonly log: Logger;
  readonly statusJson: () => unknown;
  /** Stops the cluster, or the head alone; settles when it is done. */
  readonly stop: (options: { readonly graceMs: number; readonly leaveNodes: boolean }) => Promise<void>;
}

export interface ControlServer extends AsyncDisposable {
  readonly port: number;
  readonly close: () => Promise<void>;
}

/** Listens for daemons and clients and hands their messages to the head; port 0 takes a free one. @throws SlimeError `port.taken`. */
export async function serveControl(head: Head, options: ControlServerOptions): Promise<ControlServer> {
  const { host, port, log } = options;
  const server = new Server({
    "grpc.max_receive_message_length": controlBytesMax,
    "grpc.max_send_message_length": controlBytesMax,
    // A dead process is told by its closed socket at once. Pings find the rest; a busy peer (a trainer's event loop) must not be cut for being busy.
    "grpc.keepalive_time_ms": 5_000,
    "grpc.keepalive_timeout_ms": 60_000,
  });
  const implementation: ControlServiceServer = {
    nodeLink: (call: ServerDuplexStream<NodeUpBatch, NodeDownBatch>) => {
      const inlet = head.openNode(batching<NodeDown, NodeDownBatch>(call, (messages) => ({ epoch: head.epoch, messages })));
      attach(call, inlet, log);
    },
    clientLink: (call: ServerDuplexStream<ClientUpBatch, ClientDownBatch>) => {
      const inlet = head.openClient(batching<ClientDown, ClientDownBatch>(call, (messages) => ({ epoch: head.epoch, messages })));
      attach(call, inlet, log);
    },
    getStatus: (_call, reply) => unary(reply, async () => ({ statusJson: Buffer.from(JSON.stringify(options.statusJson())) })),
    stopNode: (call, reply) =>
      unary(reply, async () => {
        await head.ask({ kind: "node.stop", nodeId: call.request.nodeId, graceMs: call.request.graceMs });
        return {};
      }),
    stopHead: (call, reply) =>
      unary(reply, async () => {
        await options.stop({ graceMs: call.request.graceMs, leaveNodes: call.request.leaveNodes });
        return {};
      }),
  };
  server.addService(ControlServiceService, implementation);
  const bound = await new Promise<number>((resolve, reject) => {
    server.bindAsync(`${host}:${port}`, ServerCredentials.createInsecure(), (error, at) => {
      if (error === null) resolve(at);
      else
        reject(
          new SlimeError(
            "port.taken",
            `port ${port} of ${host} cannot be listened on (${error.message}): stop what holds it or choose another --port`,
            { port, pid: null },
            { cause: error },
          ),
        );
    });
  });
  const control: ControlServer = {
    port: bound,
    close: () =>
      new Promise((resolve) => {
        server.tryShutdown(() => resolve());
        setImmediate(() => server.forceShutdown()); // streams never end by themselves
      }),
    [Symbol.asyncDispose]: () => control.close(),
  };
  return control;
}

/** Gathers what is sent in one turn into batches; cuts a stream whose peer does not read. */
function batching<M, B>(
  call: ServerDuplexStream<never, B> | ServerDuplexStream<NodeUpBatch, B> | ServerDuplexStream<ClientUpBatch, B>,
  wrap: (messages: M[]) => B,
): Outlet<M> {
  let waiting: M[] = [];
  let ended = false;
  const flush = (): void => {
    const messages = waiting;
    waiting = [];
    if (call.destroyed || call.cancelled) return;
    if (call.writableLength > batchesWaitingMax) return void call.destroy(new Error("the peer does not read"));
    for (let at = 0; at < messages.length; at += batchMax) call.write(wrap(messages.slice(at, at + batchMax)));
    if (ended) call.end();
  };
  return {
    send(message) {
      if (ended) return;
      if (waiting.push(message) === 1) queueMicrotask(flush);
    },
    close() {
      if (ended) return;
      ended = true;
      if (waiting.length === 0) queueMicrotask(flush);
    },
  };
}

/** Carries a stream's batches in, in order, and tells of its end once, however it ends. */
function attach<U, D>(
  call: ServerDuplexStream<U, D>,
  inlet: { readonly receive: (batch: U) => void; readonly closed: () => void },
  log: Logger,
): void {
  let over = false;
  const closed = (): void => {
    if (over) return;
    over = true;
    inlet.closed();
  };
  call.on("data", (batch: U) => {
    if (!over) inlet.receive(batch);
  });
  call.on("end", () => {
    closed();
    call.end();
  });
  call.on("cancelled", closed);
  call.on("close", closed);
  call.on("error", (error: unknown) => {
    log.debug("control.stream_broke", { error });
    closed();
  });
}

/** A unary answer; a failure travels whole in the status details, its message for people. */
function unary<R>(reply: sendUnaryData<R>, work: () => Promise<R>): void {
  work().then(
    (value) => reply(null, value),
    (error: unknown) => {
      const failure: Partial<ServiceError> = {
        code: factsOf(error).httpStatus === 404 ? status.NOT_FOUND : status.FAILED_PRECONDITION,
        details: JSON.stringify(toFailure(error, "head")),
      };
      reply(failure);
    },
  );
}
