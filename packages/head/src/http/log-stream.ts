import type { ServerResponse } from "node:http";
import type { Clock } from "@slime/core";
import { followLog, type LogSource } from "@slime/telemetry";
import type { WebSocket } from "ws";

/** A comment keeps proxies and clients sure that the stream lives. */
const keepaliveMs = 15_000;

/**
 * A log as server-sent events, resumable by byte: each `log` event's id is the offset after its text, so `Last-Event-ID` goes on exactly there.
 * Ends with an `end` event that carries what `last` returns. Text that is not UTF-8 is shown with replacement characters; offsets stay those of the bytes.
 */
export async function streamLog(
  response: ServerResponse,
  source: LogSource,
  options: FollowOptions & { readonly last: () => unknown },
): Promise<void> {
  const { clock, signal } = options;
  response.writeHead(200, {
    "content-type": "text/event-stream; charset=utf-8",
    "cache-control": "no-store",
    connection: "keep-alive",
    "x-accel-buffering": "no",
  });
  response.flushHeaders();
  let keepalive = clock.after(keepaliveMs, beat);
  function beat(): void {
    if (signal.aborted) return;
    response.write(": still here\n\n");
    keepalive = clock.after(keepaliveMs, beat);
  }
  try {
    for await (const { offset, end, text } of logTexts(source, options)) await send(response, "log", end, { offset, text }, signal);
    await send(response, "end", null, options.last(), signal);
  } catch (error) {
    if (!signal.aborted) throw error;
  } finally {
    keepalive.cancel();
    response.end();
  }
}

/**
 * A log as Ray's clients read it: text messages over a WebSocket, closed when the job has ended. A reader that is slow holds the log back.
 * @param socket open; it is closed in any case.
 */
export async function tailLog(socket: WebSocket, source: LogSource, options: FollowOptions): Promise<void> {
  try {
    for await (const { text } of logTexts(source, options))
      await new Promise<void>((resolve, reject) => socket.send(text, (error) => (error ? reject(error) : resolve())));
    socket.close(1000);
  } catch {
    socket.terminate();
  }
}

interface FollowOptions {
  readonly clock: Clock;
  readonly offset: number;
  readonly signal: AbortSignal;
}

/** Pieces of a log that end between characters, from `offset` to the end of what writes it. @throws the signal's reason. */
async function* logTexts(
  source: LogSource,
  { clock, offset: from, signal }: FollowOptions,
): AsyncGenerator<{ readonly offset: number; readonly end: number; readonly text: string }> {
  let held: Buffer = Buffer.alloc(0);
  let sent = from;
  for await (const { offset, bytes } of followLog(source, { clock, offset: from, signal })) {
    const all = held.length === 0 ? bytes : Buffer.concat([held, bytes]);
    const whole = wholeCharacters(all);
    sent = offset - held.length;
    held = Buffer.from(all.subarray(whole));
    if (whole > 0) yield { offset: sent, end: sent + whole, text: all.toString("utf8", 0, whole) };
    sent += whole;
    signal.throwIfAborted();
  }
  if (held.length > 0) yield { offset: sent, end: sent + held.length, text: held.toString("utf8") };
}

/** Waits while the reader is slow: at most one chunk is held for it. */
async function send(response: ServerResponse, event: string, id: number | null, data: unknown, signal: AbortSignal): Promise<void> {
  const text = `event: ${event}\n${id === null ? "" : `id: ${id}\n`}data: ${JSON.stringify(data)}\n\n`;
  if (response.write(text)) return;
  await new Promise<void>((resolve) => {
    const done = () => {
      response.off("drain", done);
      signal.removeEventListener("abort", done);
      resolve();
    };
    response.once("drain", done);
    signal.addEventListener("abort", done, { once: true });
  });
}

/** Bytes up to the last whole UTF-8 character; all of them when the tail cannot become one. */
export function wholeCharacters(bytes: Buffer): number {
  for (let back = 1; back <= Math.min(3, bytes.length); back++) {
    const byte = bytes[bytes.length - back] ?? 0;
    if ((byte & 0xc0) === 0x80) continue;
    const length = byte >= 0xf0 ? 4 : byte >= 0xe0 ? 3 : byte >= 0xc0 ? 2 : 1;
    return length > back ? bytes.length - back : bytes.length;
  }
  return bytes.length;
}
