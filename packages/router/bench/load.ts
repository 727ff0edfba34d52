/** The closed-loop load of a bench, in a process of its own, on bare sockets. Takes one `LoadOrder` after another, answers each with a `LoadResult`. */
import { readFileSync } from "node:fs";
import { connect, type Socket } from "node:net";
import type { LoadOrder, LoadResult } from "./messages.js";

const ticksPerSecond = 100;
const inputIds = Array.from({ length: 256 }, (_, at) => 10_000 + ((at * 7_919) % 9_000));

process.on("message", (order: LoadOrder) => {
  void run(order).then((result) => process.send?.(result));
});
process.on("disconnect", () => process.exit(0));

function request({ port, stream }: LoadOrder): Buffer {
  const sampling_params = { temperature: 1, max_new_tokens: 64 };
  const body = JSON.stringify({ input_ids: inputIds, sampling_params, return_logprob: false, stream });
  const head = `POST /generate HTTP/1.1\r\nhost: 127.0.0.1:${port}\r\ncontent-type: application/json\r\naccept: */*\r\ncontent-length: ${body.length}\r\n\r\n`;
  return Buffer.from(head + body);
}

/** User and system time of a process, all of its threads. */
function cpuSeconds(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, "latin1").split(") ")[1]?.split(" ") ?? [];
    return (Number(fields[11]) + Number(fields[12])) / ticksPerSecond;
  } catch {
    return Number.NaN;
  }
}

async function run(order: LoadOrder): Promise<LoadResult> {
  const bytes = request(order);
  const latencies: number[] = [];
  const perTenth: number[] = [];
  const counts = { lost: 0, brokenOff: 0, errorEvents: 0, errorEventsTwice: 0, refused: 0 };
  const sockets = new Set<Socket>();
  let phase: "warm" | "window" | "over" = "warm";
  let begun = 0;
  let answers = 0;
  let allAnswered: () => void = () => {};
  const everyOne = new Promise<void>((resolve) => (allAnswered = resolve));
  const fail = (how: keyof typeof counts) => {
    if (phase === "window") counts[how]++;
    if (order.once && ++answers === order.clients) allAnswered();
  };

  const client = (connected: () => void) => {
    const socket = connect({ port: order.port, host: "127.0.0.1", noDelay: true });
    sockets.add(socket);
    let sentAt = 0;
    let left = -1;
    let got = false;
    let chunked = false;
    let status = 0;
    let errors = 0;
    let end = "";
    let reported = false;
    const ask = () => {
      if (phase === "over") return void socket.destroy();
      got = false;
      chunked = false;
      left = -1;
      errors = 0;
      end = "";
      sentAt = performance.now();
      socket.write(bytes);
    };
    const done = () => {
      const now = performance.now();
      if (phase === "window") {
        if (status !== 200) counts.refused++;
        else if (errors > 0) counts[errors === 1 ? "errorEvents" : "errorEventsTwice"]++;
        else {
          latencies.push(now - sentAt);
          const tenth = Math.floor((now - begun) / 100);
          perTenth[tenth] = (perTenth[tenth] ?? 0) + 1;
        }
      }
      if (!order.once) return ask();
      if (++answers === order.clients) allAnswered();
    };
    socket.on("connect", () => {
      connected();
      ask();
    });
    socket.on("data", (read: Buffer) => {
      let from = 0;
      if (!got) {
        got = true;
        const headEnd = read.indexOf("\r\n\r\n");
        const head = read.toString("latin1", 0, headEnd);
        status = Number(head.slice(9, 12));
        chunked = /transfer-encoding: *chunked/i.test(head);
        left = chunked ? 0 : Number(/content-length: *(\d+)/i.exec(head)?.[1] ?? 0);
        from = headEnd + 4;
      }
      if (chunked) {
        if (order.stream && read.includes('data: {"error"')) errors += read.toString("latin1").split('data: {"error"').length - 1;
        end = read.length >= 7 ? read.toString("latin1", read.length - 7) : (end + read.toString("latin1")).slice(-7);
        if (end === "\r\n0\r\n\r\n") done();
      } else {
        left -= read.length - from;
        if (left <= 0) done();
      }
    });
    const closed = () => {
      sockets.delete(socket);
      if (reported || phase === "over") return;
      reported = true;
      connected();
      fail(got ? "brokenOff" : "lost");
      if (!order.once) setTimeout(() => client(() => {}), 10);
    };
    socket.on("error", closed);
    socket.on("close", closed);
  };

  // Connections come in groups, so that no backlog overflows.
  for (let made = 0; made < order.clients; ) {
    const group: Promise<void>[] = [];
    for (let i = 0; i < 256 && made < order.clients; i++, made++) group.push(new Promise((resolve) => client(resolve)));
    if (order.once) phase = "window";
    await Promise.all(group);
  }
  if (!order.once) await new Promise((resolve) => setTimeout(resolve, order.warmMs));
  phase = "window";
  begun = performance.now();
  const cpu = cpuSeconds(order.pid);
  if (order.once) await everyOne;
  else
    for (let windows = 0; windows < 10 && (windows === 0 || latencies.length < order.clients / 2); windows++)
      await new Promise((resolve) => setTimeout(resolve, order.windowMs));
  const cpuSpent = cpuSeconds(order.pid) - cpu;
  const seconds = (performance.now() - begun) / 1_000;
  phase = "over";
  for (const socket of sockets) socket.destroy();
  const sorted = Float64Array.from(latencies).sort();
  const quantile = (share: number) => sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * share))] ?? null;
  return {
    answered: latencies.length,
    seconds,
    cpuSeconds: cpuSpent,
    p50Ms: quantile(0.5),
    p99Ms: quantile(0.99),
    maxMs: quantile(1),
    perTenth: Array.from(perTenth, (count) => count ?? 0),
    ...counts,
  };
}
