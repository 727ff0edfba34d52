/**
 * Calls to an actor in a real host process over a unix socket, through handles, against a bare echo in the same run: length-framed
 * arrays of small messages, one frame a turn, nothing else. Bars: sync ≥ 40 %, 1,000 in flight ≥ 12 % of the echo.
 * Prints one JSON line; run on an idle machine after a build: `node --import tsx packages/runtime/bench/calls.ts`.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ActorId, systemRandom } from "@slime/core";
import { type ActorSpec, encodeValue, hostEnvironment, serve } from "@slime/rpc";
import { type ActorHandle, hostEntry } from "@slime/runtime";
import { attachTo } from "@slime/runtime/testing";

export class Echo {
  echo(text: string): string {
    return text;
  }
  async echoLater(text: string): Promise<string> {
    return text;
  }
}

const roundSeconds = Number(process.env["BENCH_SECONDS"] ?? 1.5);
const rounds = 3;
const clusterId = "cluster_00000000000000bb";
const [, , role, path] = process.argv;
if (role === "echo" && path !== undefined) serveEcho(path);
else if (process.env[hostEnvironment.actorId] === undefined) await measure();

function serveEcho(at: string): void {
  createServer((socket) =>
    socket.on(
      "data",
      frames((batch) => writeFrame(socket, batch)),
    ),
  ).listen(at, () => process.send?.("ready"));
}

async function measure(): Promise<void> {
  const dir = mkdtempSync(join(tmpdir(), "slime-bench-"));
  const children: ChildProcess[] = [];
  try {
    const echoPath = join(dir, "echo.sock");
    const echoProcess = fork(process.argv[1] ?? "", ["echo", echoPath], { execArgv: process.execArgv });
    children.push(echoProcess);
    await once(echoProcess, "message");
    const echo = await echoClient(echoPath);
    const host = await startHost(dir, children);
    const counter = host.handle;
    const best = { echoSync: 0, callSync: 0, echoFlight: 0, callFlight: 0, asyncFlight: 0 };
    for (let round = 0; round < rounds; round++) {
      best.echoSync = Math.max(best.echoSync, await rate(1, () => echo.call("hello")));
      best.callSync = Math.max(best.callSync, await rate(1, () => counter.echo("hello")));
      best.echoFlight = Math.max(best.echoFlight, await rate(1000, () => echo.call("hello")));
      best.callFlight = Math.max(best.callFlight, await rate(1000, () => counter.echo("hello")));
      best.asyncFlight = Math.max(best.asyncFlight, await rate(1000, () => counter.echoLater("hello")));
    }
    echo.close();
    await host.close();
    const percent = (part: number, whole: number) => Math.round((1000 * part) / whole) / 10;
    const rounded = Object.fromEntries(Object.entries(best).map(([name, value]) => [name, Math.round(value)]));
    console.log(
      JSON.stringify({
        bench: "runtime.calls",
        ...rounded,
        syncPercentOfEcho: percent(best.callSync, best.echoSync),
        syncBar: 40,
        inFlightPercentOfEcho: percent(best.callFlight, best.echoFlight),
        inFlightBar: 12,
      }),
    );
  } finally {
    for (const child of children) child.kill("SIGKILL");
    rmSync(dir, { recursive: true, force: true });
  }
}

/** A real host, with this process as its daemon and as its caller. */
async function startHost(
  dir: string,
  children: ChildProcess[],
): Promise<{ readonly handle: ActorHandle<Echo>; readonly close: () => Promise<void> }> {
  const actorId = ActorId.create(systemRandom);
  const spec: ActorSpec = {
    actorId,
    incarnation: 1,
    jobId: "job_00000000000000bb",
    language: "node",
    module: import.meta.url,
    name: "",
    exportName: "Echo",
    args: encodeValue([]),
    concurrency: 1,
    concurrencyGroups: {},
    pendingCallsMax: 100_000,
    env: {},
    cwd: null,
    resources: {},
    gpus: [],
    placement: null,
  };
  let alive = (_socket: string) => {};
  const socket = new Promise<string>((resolve) => (alive = resolve));
  const daemon = await serve({
    path: join(dir, "n.sock"),
    hello: { clusterId, who: { kind: "node", id: "node_00000000000000bb", incarnation: 1, pid: process.pid } },
    handler(call) {
      if (call.method === "host.register") {
        void call.peer.call("host.assign", spec);
        return { nodeId: "node_00000000000000bb", orphanGraceMs: 60_000 };
      }
      if (call.method === "host.alive") alive((call.args as { socketPath: string }).socketPath);
      return null;
    },
  });
  children.push(
    spawn(process.execPath, [hostEntry], {
      stdio: ["ignore", "ignore", "inherit"],
      env: {
        PATH: process.env["PATH"],
        [hostEnvironment.clusterId]: clusterId,
        [hostEnvironment.nodeId]: "node_00000000000000bb",
        [hostEnvironment.processId]: "proc_00000000000000bb",
        [hostEnvironment.socketDir]: dir,
        [hostEnvironment.storeDir]: join(dir, "store"),
        [hostEnvironment.nodeSocket]: join(dir, "n.sock"),
      },
    }),
  );
  const { handle, runtime } = attachTo<Echo>({ clusterId, actorId, incarnation: 1, socket: await socket });
  return {
    handle,
    async close() {
      await runtime.close();
      await daemon.close();
    },
  };
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
function writeFrame(socket: Socket, batch: readonly Buffer[]): void {
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
