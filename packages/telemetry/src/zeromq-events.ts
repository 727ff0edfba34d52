import { SlimeError } from "@slime/core";
import { decodeEvent, type EventLine, eventBytesMax } from "./event-line.js";
import type { EventSocket } from "./event-publisher.js";

/** Messages a slow listener may be behind before ZeroMQ drops its newest. */
const behindMax = 10_000;
const sendTimeoutMs = 2_000;

/** Binds a PUB socket on loopback. @returns the socket and the endpoint listeners connect to. */
export async function bindEventSocket(
  endpoint = "tcp://127.0.0.1:*",
): Promise<{ readonly socket: EventSocket; readonly endpoint: string }> {
  refuseBeyondLoopback(endpoint);
  const { Publisher } = await import("zeromq");
  const socket = new Publisher({ linger: 0, sendHighWaterMark: behindMax, sendTimeout: sendTimeoutMs });
  await socket.bind(endpoint);
  return { socket: { send: (frames) => socket.send([...frames]), close: () => socket.close() }, endpoint: socket.lastEndpoint ?? endpoint };
}

/**
 * The events of an endpoint, from now on, until the signal aborts. Lines that are no events are skipped: a listener outlives what it cannot read.
 * @param names prefixes of event names; default: all.
 */
export async function* subscribeEvents(
  endpoint: string,
  options: { readonly signal: AbortSignal; readonly names?: readonly string[] },
): AsyncGenerator<EventLine> {
  refuseBeyondLoopback(endpoint);
  const { Subscriber } = await import("zeromq");
  const socket = new Subscriber({ linger: 0, receiveHighWaterMark: behindMax, maxMessageSize: eventBytesMax });
  const close = () => socket.close();
  options.signal.addEventListener("abort", close, { once: true });
  try {
    if (options.signal.aborted) return;
    socket.connect(endpoint);
    for (const name of options.names ?? [""]) socket.subscribe(name);
    for await (const frames of socket) {
      const line = readLine(frames[1]);
      if (line !== null) yield line;
    }
  } finally {
    options.signal.removeEventListener("abort", close);
    socket.close();
  }
}

function readLine(frame: Buffer | undefined): EventLine | null {
  if (frame === undefined) return null;
  try {
    return decodeEvent(frame.toString("utf8"));
  } catch (error) {
    if (SlimeError.is(error, "codec.refused")) return null;
    throw error;
  }
}

/** Sockets beyond this machine need CURVE with an authenticator, which this version does not have. */
function refuseBeyondLoopback(endpoint: string): void {
  if (/^(tcp:\/\/127\.\d+\.\d+\.\d+:|ipc:\/\/|inproc:\/\/)/.test(endpoint)) return;
  throw new SlimeError("address.refused", `events go to loopback only until peers can be authenticated; ${endpoint} is not loopback`, {
    address: endpoint,
  });
}
