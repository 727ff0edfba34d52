/**
 * Calls between two processes over a unix socket, against a bare echo in the same run: length-framed arrays of small
 * messages, one frame a turn, JSON-free, no envelope, no deadlines, no promises per call kept by id.
 * Prints one JSON line; run on an idle machine: `node --import tsx packages/rpc/bench/calls.ts`.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { connect, type Hello, serve } from "@slime/rpc";

const hello: Hello = { clusterId: "cluster_0000000000000000", who: { kind: "tool", id: "bench", incarnation: 0, pid: process.pid } };
const roundSeconds = 1.5;
const rounds = 3;

const [, , role, path] = process.argv;
if (role === "echo" && path !== undefined) serveEcho(path);
else if (role === "peer" && path !== undefined) await servePeer(path);
else await measure();

function serveEcho(at: string): void {
  createServer((socket) =>
    socket.on(
      "data",
      frames((batch) => writeFrame(socket, batch)),
    ),
  ).listen(at, () => process.send?.("ready"));
}

async function servePeer(at: string): Promise<void> {
  await serve({ path: at, hello, handler: async (call) => call.args });
  process.send?.("ready");
}

async function measure(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "slime-bench-"));
  const children: ChildProcess[] = [];
  const start = async (kind: string) => {
    const at = join(dir, `${kind}.sock`);
    const child = fork(process.argv[1] ?? "", [kind, at], { execArgv: process.execArgv });
    children.push(child);
    await once(child, "message");
    return at;
  };
  try {
    const echoPath = await start("echo");
    const peerPath = await start("peer");
    const best = { echoSync: 0, echoFlight: 0, callSync: 0, callFlight: 0 };
    const peer = await connect(peerPath, { hello });
    const echo = await echoClient(echoPath);
    for (let round = 0; round < rounds; round++) {
      best.echoSync = Math.max(best.echoSync, await rate(1, () => echo.call("hello")));
      best.callSync = Math.max(best.callSync, await rate(1, () => peer.call("echo", ["hello"])));
      best.echoFlight = Math.max(best.echoFlight, await rate(1000, () => echo.call("hello")));
      best.callFlight = Math.max(best.callFlight, await rate(1000, () => peer.call("echo", ["hello"])));
    }
    await peer.close();
    echo.close();
    const percent = (part: number, whole: number) => Math.round((1000 * part) / whole) / 10;
    console.log(
      JSON.stringify({
        bench: "rpc.calls",
        ...mapValues(best, Math.round),
        syncPercentOfEcho: percent(best.callSync, best.echoSync),
        syncBar: 40,
        inFlightPercentOfEcho: percent(best.callFlight, best.echoFlight),
        inFlightBar: 12,
      }),
    );
  } finally {
    for (const child of children) child.kill();
    rmSync(dir, { recursive: true, force: true });
  }
}

/** Calls a second with `window` of them in flight: each turn sends again as many as came back. */
async function rate(window: number, call: () => Promise<unknown>): Promise<number> {
  const startMs = performance.now();
  const untilMs = startMs + roundSeconds * 1000;
  let done = 0;
  const worker = async () => {
    while (performance.now() < untilMs) {
      await call();
      done++;
    }
  };
  await Promise.all(Array.from({ length: window }, worker));
  return (done * 1000) / (performance.now() - startMs);
}

/** `[u32 length][u16 count]` then `[u16 length][bytes]` each: the least that can carry arrays of messages. */
function writeFrame(socket: { readonly write: (bytes: Uint8Array) => boolean }, batch: readonly Buffer[]): void {
  const bytes = batch.reduce((sum, message) => sum + 2 + message.length, 6);
  const out = Buffer.allocUnsafe(bytes);
  out.writeUInt32LE(bytes, 0);
  out.writeUInt16LE(batch.length, 4);
  let at = 6;
  for (const message of batch) {
    out.writeUInt16LE(message.length, at);
    message.copy(out, at + 2);
    at += 2 + message.length;
  }
  socket.write(out);
}

function frames(take: (batch: readonly Buffer[]) => void): (chunk: Buffer) => void {
  let rest: Buffer = Buffer.alloc(0);
  return (chunk) => {
    rest = rest.length === 0 ? chunk : Buffer.concat([rest, chunk]);
    while (rest.length >= 6 && rest.length >= rest.readUInt32LE(0)) {
      const batch: Buffer[] = [];
      let at = 6;
      for (let i = rest.readUInt16LE(4); i > 0; i--) {
        const length = rest.readUInt16LE(at);
        batch.push(rest.subarray(at + 2, at + 2 + length));
        at += 2 + length;
      }
      rest = rest.subarray(at);
      take(batch);
    }
  };
}

async function echoClient(at: string): Promise<{ readonly call: (text: string) => Promise<unknown>; readonly close: () => void }> {
  const socket = createConnection(at);
  await once(socket, "connect");
  // Answers come in order, so the oldest waiter is theirs.
  let waiting: ((value: unknown) => void)[] = [];
  let taken = 0;
  let batch: Buffer[] = [];
  socket.on(
    "data",
    frames((answers) => {
      for (const answer of answers) waiting[taken++]?.(answer.toString("latin1"));
      if (taken < 4096) return;
      waiting = waiting.slice(taken);
      taken = 0;
    }),
  );
  return {
    call(text) {
      if (batch.length === 0) {
        queueMicrotask(() =>
          process.nextTick(() => {
            const full = batch;
            batch = [];
            writeFrame(socket, full);
          }),
        );
      }
      batch.push(Buffer.from(text, "latin1"));
      return new Promise((resolve) => waiting.push(resolve));
    },
    close: () => socket.destroy(),
  };
}

function mapValues(values: Readonly<Record<string, number>>, map: (value: number) => number): Record<string, number> {
  return Object.fromEntries(Object.entries(values).map(([key, value]) => [key, map(value)]));
}
