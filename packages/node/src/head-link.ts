import { type Client, type ClientOptions, credentials } from "@grpc/grpc-js";
import { backoffDelayMs, type Clock, type Logger, type Random, type SlimeError, type Timer } from "@slime/core";
import { fromFailure, readFailure } from "@slime/rpc";
import {
  ControlServiceClient,
  type Heartbeat,
  type NodeDown,
  type NodeDownBatch,
  type NodeHello,
  type NodeUp,
  type NodeUpBatch,
  type NodeWelcome,
} from "@slime/rpc/control";
import { nodeLimits } from "./limits.js";

/**
 * A daemon's link to the head: one stream, all messages of a turn in one batch, tried again for as long as it is wanted.
 * Invariants: L1 nothing is queued while the link is down: the hello of the next stream says everything up to then, and what comes
 * after it follows it, welcomed or not; L2 messages of a
 * lower epoch than seen are dropped; L3 a head that is silent for `silenceMs` is as good as gone.
 */
export interface HeadLink {
  /** Sends with this turn's batch; without a stream it is dropped (L1). */
  readonly send: (up: NodeUp) => void;
  readonly connected: () => boolean;
  /** Ends the link; with a last message when there is a stream. */
  readonly close: (goodbye?: NodeUp) => Promise<void>;
}

/** The daemon's end of one stream. */
export interface HeadStream {
  readonly write: (batch: NodeUpBatch) => unknown;
  readonly end: () => unknown;
  readonly cancel: () => void;
  readonly onData: (hear: (batch: NodeDownBatch) => void) => void;
  /** It is over: broken for a reason, or ended by the head. */
  readonly onOver: (hear: (reason: string) => void) => void;
  readonly onClose: (hear: () => void) => void;
}

/** A way to the head: gRPC, or memory where a whole cluster is one process. */
export interface HeadDialler {
  /** Resolves when the head answers at all. @throws the reason after `timeoutMs`. */
  readonly ready: (timeoutMs: number) => Promise<void>;
  readonly open: () => HeadStream;
  readonly close: () => void;
}

export interface HeadLinkOptions {
  readonly address: string;
  /** Default: gRPC. */
  readonly dial?: (address: string) => HeadDialler;
  /** Calls back once this turn's messages are said; they travel as one batch. Default: `setImmediate`. */
  readonly endOfTurn?: (flush: () => void) => void;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly hello: () => NodeHello;
  readonly heartbeat: (sequence: number) => Heartbeat;
  readonly onWelcome: (welcome: NodeWelcome) => void;
  readonly onMessage: (down: NodeDown) => void;
  /** The head does not want us; the link is over. */
  readonly onRefused: (error: SlimeError) => void;
  /** Called when a stream was lost and at each failed try, with how long there has been none. */
  readonly onDown: (awayMs: number) => void;
}

const clientOptions: Partial<ClientOptions> = {
  "grpc.keepalive_time_ms": 2_000,
  "grpc.keepalive_timeout_ms": 2_000,
  "grpc.keepalive_permit_without_calls": 1,
  "grpc.use_local_subchannel_pool": 1,
  "grpc.max_receive_message_length": 64 * 1024 * 1024,
  "grpc.max_send_message_length": 64 * 1024 * 1024,
};

/** A client of the head's control service on loopback. */
export function controlClient(address: string): ControlServiceClient {
  return new ControlServiceClient(address, credentials.createInsecure(), clientOptions);
}

/** Resolves when the head answers at all. @throws the reason after `timeoutMs`. */
export function waitForReady(client: Client, timeoutMs: number, clock: Clock): Promise<void> {
  return new Promise((resolve, reject) => client.waitForReady(clock.wallMs() + timeoutMs, (error) => (error ? reject(error) : resolve())));
}

function grpcDialler(address: string, clock: Clock): HeadDialler {
  const client = controlClient(address);
  return {
    ready: (timeoutMs) => waitForReady(client, timeoutMs, clock),
    open() {
      const stream = client.nodeLink();
      return {
        write: (batch) => stream.write(batch),
        end: () => stream.end(),
        cancel: () => stream.cancel(),
        onData: (hear) => void stream.on("data", hear),
        onOver(hear) {
          stream.on("error", (error) => hear(error.message));
          stream.on("end", () => hear("the head ended the stream"));
        },
        onClose: (hear) => void stream.once("close", hear),
      };
    },
    close: () => client.close(),
  };
}

interface Open {
  readonly client: HeadDialler;
  readonly stream: HeadStream;
  welcomed: boolean;
  heardMs: number;
}

/** Opens the link and keeps it open. */
export function headLink(options: HeadLinkOptions): HeadLink {
  const { clock, log } = options;
  const policy = {
    firstMs: nodeLimits.reconnectMsFirst,
    factor: 1.5,
    delayMsMax: nodeLimits.reconnectMsMax,
    jitter: 0.2,
    triesMax: Number.POSITIVE_INFINITY,
  };
  let open: Open | null = null;
  let closed = false;
  let epoch = 0;
  let sequence = 0;
  let attempt = 1;
  let heartbeatMs: number = nodeLimits.heartbeatMs;
  let silenceMsMax = 15_000;
  let lastUpMs = clock.nowMs();
  let pending: NodeUp[] = [];
  let retry: Timer | null = null;
  let beat: Timer | null = null;

  const write = (messages: NodeUp[]) => void open?.stream.write({ epoch, messages });
  const flush = () => {
    const messages = pending;
    pending = [];
    if (messages.length > 0) write(messages);
  };
  const lost = (which: Open, reason: string) => {
    if (open !== which) return;
    open = null;
    pending = [];
    beat?.cancel();
    which.stream.cancel();
    which.client.close();
    if (which.welcomed) {
      lastUpMs = clock.nowMs();
      log.warn("head.lost", { address: options.address, reason });
      attempt = 1;
    }
    again();
  };
  const again = () => {
    if (closed) return;
    options.onDown(clock.nowMs() - lastUpMs);
    retry = clock.after(backoffDelayMs(policy, ++attempt, options.random) ?? policy.delayMsMax, connect);
  };
  const heartbeat = () => {
    const which = open;
    beat = clock.after(heartbeatMs, () => {
      if (which === null || open !== which) return;
      if (clock.nowMs() - which.heardMs > silenceMsMax) return lost(which, `silent for ${silenceMsMax} ms (L3)`);
      send({ message: { $case: "heartbeat", value: options.heartbeat(++sequence) } });
      heartbeat();
    });
  };
  const receive = (which: Open, batch: NodeDownBatch) => {
    if (open !== which) return;
    which.heardMs = clock.nowMs();
    if (batch.epoch < epoch) return log.warn("head.stale", { epoch: batch.epoch, current: epoch });
    epoch = batch.epoch;
    for (const down of batch.messages) {
      const message = down.message;
      if (message?.$case === "welcome") {
        which.welcomed = true;
        attempt = 1;
        heartbeatMs = message.value.heartbeatMs || nodeLimits.heartbeatMs;
        silenceMsMax = Math.max(heartbeatMs * 2, (message.value.nodeSilenceMsMax || 15_000) * 0.8);
        options.onWelcome(message.value);
        heartbeat();
      } else if (message?.$case === "refused") {
        closed = true;
        lost(which, "refused");
        return options.onRefused(fromFailure(readFailure(JSON.parse(message.value.failure.toString() || "null"))));
      } else if (message?.$case !== "ack") options.onMessage(down);
    }
  };
  const connect = () => {
    if (closed) return;
    const client = options.dial?.(options.address) ?? grpcDialler(options.address, clock);
    client.ready(nodeLimits.connectMsMax).then(
      () => {
        if (closed) return client.close();
        const stream = client.open();
        const which: Open = { client, stream, welcomed: false, heardMs: clock.nowMs() };
        open = which;
        stream.onData((batch) => receive(which, batch));
        stream.onOver((reason) => lost(which, reason));
        write([{ message: { $case: "hello", value: options.hello() } }]);
        clock.after(nodeLimits.connectMsMax * 5, () => {
          if (!which.welcomed) lost(which, "no welcome");
        });
      },
      () => {
        client.close();
        again();
      },
    );
  };
  const send = (up: NodeUp) => {
    if (open === null || pending.length >= nodeLimits.batchMessagesMax) return;
    if (pending.length === 0) (options.endOfTurn ?? setImmediate)(flush);
    pending.push(up);
  };
  connect();
  return {
    send,
    connected: () => open?.welcomed === true,
    async close(goodbye) {
      if (closed) return;
      closed = true;
      retry?.cancel();
      beat?.cancel();
      const which = open;
      if (which === null) return;
      if (goodbye !== undefined) pending.push(goodbye);
      flush();
      await new Promise<void>((resolve) => {
        const limit = clock.after(1_000, resolve);
        which.stream.onClose(() => {
          limit.cancel();
          resolve();
        });
        which.stream.end();
      });
      open = null;
      which.stream.cancel();
      which.client.close();
    },
  };
}
