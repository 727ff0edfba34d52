/**
 * Messages within a frame, each an array that begins with its type. Trailing fields may be missing, and ones from a newer
 * peer are skipped; so a field can be added without a new protocol version. Deadlines travel as milliseconds that are left,
 * because clocks of two processes are not compared.
 */
import type { Failure } from "./failure.js";
import { readFailure } from "./failure.js";
import type { Hello } from "./peer-api.js";
import type { ValueReader } from "./value-reader.js";
import type { ValueWriter } from "./value-writer.js";

/** Type numbers of messages; never reused. */
export const messageType = {
  /** `[0, callId, method, args, deadlineMs | nil, traceId | nil, idempotencyKey | nil, urgent]` */
  call: 0,
  /** `[1, callId, value]`; without a value it is undefined. */
  result: 1,
  /** `[2, callId, Failure]` */
  failure: 2,
  /** `[3, callId]`: the caller no longer wants the result. */
  cancel: 3,
  /** `[4, method, args, traceId | nil, urgent]` */
  send: 4,
  /** `[5]` asks for a pong. */
  ping: 5,
  /** `[6]` */
  pong: 6,
  /** `[7, {clusterId, who: {kind, id, incarnation, pid}}]`: the first message of each side. */
  hello: 7,
  /** `[8, reason, Failure | nil]`: the last message; with a failure the connection was refused. */
  goodbye: 8,
} as const;

/** Header fields of a call that came. */
export interface CallHead {
  readonly deadlineMs: number | null;
  readonly traceId: string | null;
  readonly idempotencyKey: string | null;
  readonly urgent: boolean;
}

/** Receives the messages of a frame in their order. `bad` is an error of a hook in the message's value. */
export interface MessageSink {
  readonly onCall: (callId: number, method: string, args: unknown, head: CallHead, bad: unknown) => void;
  readonly onResult: (callId: number, value: unknown, bad: unknown) => void;
  readonly onFailure: (callId: number, failure: Failure) => void;
  readonly onCancel: (callId: number) => void;
  readonly onSend: (method: string, args: unknown, head: CallHead, bad: unknown) => void;
  readonly onPing: () => void;
  readonly onHello: (hello: Hello) => void;
  readonly onGoodbye: (reason: string, failure: Failure | null) => void;
}

/**
 * Appends a call, trailing fields left out while they hold nothing.
 * @throws SlimeError when the codec refuses `args`; the caller of this drops what was written then.
 */
export function writeCall(out: ValueWriter, callId: number, method: string, args: unknown, head: CallHead): void {
  const full = head.idempotencyKey !== null || head.urgent;
  const { out: msgpack } = out;
  msgpack.array(full ? 8 : head.traceId !== null ? 6 : head.deadlineMs !== null ? 5 : 4);
  msgpack.number(messageType.call);
  msgpack.number(callId);
  msgpack.string(method);
  out.value(args);
  if (!full && head.traceId === null && head.deadlineMs === null) return;
  optionalNumber(out, head.deadlineMs);
  if (!full && head.traceId === null) return;
  optionalString(out, head.traceId);
  if (!full) return;
  optionalString(out, head.idempotencyKey);
  msgpack.boolean(head.urgent);
}

/** Appends a call's result; undefined travels as a missing field, so that it comes back as undefined and not as null. */
export function writeResult(out: ValueWriter, callId: number, value: unknown): void {
  const { out: msgpack } = out;
  msgpack.array(value === undefined ? 2 : 3);
  msgpack.number(messageType.result);
  msgpack.number(callId);
  if (value !== undefined) out.value(value);
}

/** Appends a call's failure. @throws SlimeError when its details are past the limits. */
export function writeFailure(out: ValueWriter, callId: number, failure: Failure): void {
  out.out.array(3);
  out.out.number(messageType.failure);
  out.out.number(callId);
  out.value(failure);
}

/** Appends that the caller no longer wants the result; the callee may have sent it already. */
export function writeCancel(out: ValueWriter, callId: number): void {
  out.out.array(2);
  out.out.number(messageType.cancel);
  out.out.number(callId);
}

/** Appends a message that wants no answer. @throws SlimeError when the codec refuses `args`. */
export function writeSend(out: ValueWriter, method: string, args: unknown, traceId: string | null, urgent: boolean): void {
  out.out.array(5);
  out.out.number(messageType.send);
  out.out.string(method);
  out.value(args);
  optionalString(out, traceId);
  out.out.boolean(urgent);
}

/** Appends a message that is its type alone. */
export function writeBare(out: ValueWriter, type: typeof messageType.ping | typeof messageType.pong): void {
  out.out.array(1);
  out.out.number(type);
}

/** Appends who speaks; only the named fields, whatever else the object holds. */
export function writeHello(out: ValueWriter, hello: Hello): void {
  out.out.array(2);
  out.out.number(messageType.hello);
  out.value({
    clusterId: hello.clusterId,
    who: { kind: hello.who.kind, id: hello.who.id, incarnation: hello.who.incarnation, pid: hello.who.pid },
  });
}

/** Appends the last message of this side; with a failure it tells the other side why it was refused. */
export function writeGoodbye(out: ValueWriter, reason: string, failure: Failure | null): void {
  out.out.array(3);
  out.out.number(messageType.goodbye);
  out.out.string(reason);
  out.value(failure);
}

/** Reads one message and hands it to the sink. Messages of unknown type are skipped. */
export function readMessage(reader: ValueReader, sink: MessageSink): void {
  const fields = reader.arrayCount("a message");
  if (fields === 0) throw reader.refused("a message is empty");
  const type = reader.count("a message's type");
  const callId = type <= messageType.cancel && fields > 1 ? reader.count("a call id") : 0;
  reader.hookError = undefined;
  switch (type) {
    case messageType.call: {
      if (fields < 4) break;
      const method = reader.string("a method");
      const args = reader.value();
      const deadlineMs = fields > 4 ? optionalCount(reader) : null;
      const traceId = fields > 5 ? optionalText(reader) : null;
      const idempotencyKey = fields > 6 ? optionalText(reader) : null;
      const urgent = fields > 7 && reader.value() === true;
      skip(reader, fields - 8);
      return sink.onCall(
        callId,
        method,
        args,
        deadlineMs === null && traceId === null && !urgent && idempotencyKey === null
          ? plainHead
          : { deadlineMs, traceId, idempotencyKey, urgent },
        reader.hookError,
      );
    }
    case messageType.result: {
      const value = fields > 2 ? reader.value() : undefined;
      skip(reader, fields - 3);
      return sink.onResult(callId, value, reader.hookError);
    }
    case messageType.failure: {
      const failure = readFailure(fields > 2 ? reader.value() : null);
      skip(reader, fields - 3);
      return sink.onFailure(callId, failure);
    }
    case messageType.cancel:
      skip(reader, fields - 2);
      return sink.onCancel(callId);
    case messageType.send: {
      if (fields < 3) break;
      const method = reader.string("a method");
      const args = reader.value();
      const traceId = fields > 3 ? optionalText(reader) : null;
      const urgent = fields > 4 && reader.value() === true;
      skip(reader, fields - 5);
      return sink.onSend(method, args, { deadlineMs: null, traceId, idempotencyKey: null, urgent }, reader.hookError);
    }
    case messageType.ping:
      skip(reader, fields - 1);
      return sink.onPing();
    case messageType.hello: {
      const hello = readHello(reader, fields > 1 ? reader.value() : null);
      skip(reader, fields - 2);
      return sink.onHello(hello);
    }
    case messageType.goodbye: {
      const reason = fields > 1 ? reader.string("a reason") : "";
      const failure = fields > 2 ? reader.value() : null;
      skip(reader, fields - 3);
      return sink.onGoodbye(reason, failure === null ? null : readFailure(failure));
    }
    default:
      return skip(reader, fields - 1);
  }
  throw reader.refused(`a message of type ${type} has only ${fields} fields`);
}

const plainHead: CallHead = { deadlineMs: null, traceId: null, idempotencyKey: null, urgent: false };

function readHello(reader: ValueReader, value: unknown): Hello {
  const hello = value as { readonly clusterId?: unknown; readonly who?: Readonly<Record<string, unknown>> } | null;
  const who = hello?.who;
  if (
    typeof hello?.clusterId !== "string" ||
    typeof who?.["kind"] !== "string" ||
    typeof who["id"] !== "string" ||
    typeof who["incarnation"] !== "number" ||
    typeof who["pid"] !== "number"
  )
    throw reader.refused("the hello is incomplete");
  return value as Hello;
}

function optionalNumber(out: ValueWriter, value: number | null): void {
  if (value === null) out.out.nil();
  else out.out.number(Math.max(0, Math.ceil(value)));
}

function optionalString(out: ValueWriter, value: string | null): void {
  if (value === null) out.out.nil();
  else out.out.string(value);
}

function optionalCount(reader: ValueReader): number | null {
  return reader.skipNil() ? null : reader.count("a deadline");
}

function optionalText(reader: ValueReader): string | null {
  return reader.skipNil() ? null : reader.string("an id");
}

function skip(reader: ValueReader, fields: number): void {
  for (let i = 0; i < fields; i++) reader.value();
}
