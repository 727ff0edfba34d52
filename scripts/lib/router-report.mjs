// What bench:router says: a table of every window, and each bar with its verdict.
import { tableLines } from "./machine.mjs";

const bars = { kibPerRequest: 16, shareAfterKill: 0.75, shareAfterStop: 0.75 };
/** The counts whose geometric mean the bars are about. */
const barCounts = [32, 512];
const geometric = (all) => Math.exp(all.reduce((sum, value) => sum + Math.log(value), 0) / all.length);
/** Answers per second of the router's CPU time. */
export const perCpuSecond = ({ answered, cpuSeconds }) => answered / Math.max(cpuSeconds, 0.01);
const ms = (value) => value?.toFixed(2) ?? "–";
/** What went wrong, as the clients saw it. */
export const wrongs = ({ lost, brokenOff, errorEvents, refused }) =>
  `${lost} lost, ${brokenOff} broken off, ${refused} refused, ${errorEvents} error events`;

/** Rows: workload by number of clients by router; of several repetitions both numbers. */
export function speedTable({ speeds, workloads, clientCounts }) {
  const head = ["workload", "clients", "router", "req/s", "µs CPU each", "req per CPU s", "p50 ms", "p99 ms", "wrong"];
  const lines = [head];
  for (const { name } of workloads)
    for (const clients of clientCounts)
      for (const router of ["bare engine", "ours", "sglang_router"]) {
        const rows = speeds.filter((row) => row.workload === name && row.clients === clients && row.router === router);
        if (rows.length === 0) continue;
        const both = (value) => rows.map(value).join(" / ");
        lines.push([
          name,
          String(clients),
          router,
          both(({ answered, seconds }) => Math.round(answered / seconds)),
          router === "bare engine" ? "" : both((row) => (row.answered === 0 ? "–" : Math.round(1e6 / perCpuSecond(row)))),
          router === "bare engine" ? "" : both((row) => Math.round(perCpuSecond(row))),
          both(({ p50Ms }) => ms(p50Ms)),
          both(({ p99Ms }) => ms(p99Ms)),
          both(({ lost, brokenOff, errorEvents, refused }) => lost + brokenOff + errorEvents + refused),
        ]);
      }
  return tableLines(lines);
}

/** Rows of metric, ours, peer, ratio, bar, ok. */
export function verdicts({ real, speeds, memories, faultRows, workloads, faults, inFlight }) {
  const rows = [];
  const perCpu = (router, name) =>
    geometric(
      speeds
        .filter((row) => row.router === router && row.workload === name && barCounts.includes(row.clients))
        .map((row) => Math.max(perCpuSecond(row), 1)),
    );
  const p50 = (router, name) =>
    Math.min(
      ...speeds.filter((row) => row.router === router && row.workload === name && row.clients === 1).map(({ p50Ms }) => p50Ms ?? Infinity),
    );
  if (real)
    for (const { name, bar } of workloads) {
      const [ours, theirs] = [perCpu("ours", name), perCpu("sglang_router", name)];
      const ratio = ours / theirs;
      rows.push([`req per CPU s, ${name}`, ours.toFixed(0), theirs.toFixed(0), `${ratio.toFixed(1)} ×`, `≥ ${bar} ×`, ratio >= bar]);
    }
  if (real)
    for (const { name } of workloads) {
      const bare = p50("bare engine", name);
      const [ours, theirs] = [p50("ours", name) - bare, p50("sglang_router", name) - bare];
      const [a, b] = [`${ours.toFixed(3)} ms`, `${theirs.toFixed(3)} ms`];
      rows.push([`p50 added at one client, ${name}`, a, b, `${(ours / theirs).toFixed(2)} ×`, "≤ 1 ×", ours <= theirs]);
    }
  const wrong = speeds
    .filter(({ router }) => router === "ours")
    .reduce((sum, row) => sum + row.lost + row.brokenOff + row.errorEvents + row.refused, 0);
  rows.push(["requests that went wrong in all of that", String(wrong), "", "", "0", wrong === 0]);
  const kib = (name) => memories.find(({ router }) => router === name);
  const ours = kib("ours");
  const theirs = kib("sglang_router");
  rows.push([
    `KiB per request, ${inFlight} in flight`,
    ours.kibPerRequest.toFixed(1),
    theirs === undefined ? "" : theirs.kibPerRequest.toFixed(1),
    "",
    `≤ ${bars.kibPerRequest}, none wrong`,
    ours.kibPerRequest <= bars.kibPerRequest && ours.wrong === 0,
  ]);
  for (const { name, stream, signal } of faults) {
    const [own, other] = ["ours", "sglang_router"].map((router) => faultRows.find((row) => row.router === router && row.name === name));
    const peer = (text) => (other === undefined ? "" : text(other));
    const clean =
      own.lost + own.brokenOff + own.refused + own.errorEventsTwice === 0 && (stream ? own.errorEvents > 0 : own.errorEvents === 0);
    rows.push([`${name}: what clients see`, wrongs(own), peer(wrongs), "", stream ? "one error event each" : "nothing", clean]);
    const bar = signal === "SIGSTOP" ? bars.shareAfterStop : bars.shareAfterKill;
    const percent = ({ share }) => `${(share * 100).toFixed(0)} %`;
    rows.push([`${name}: speed afterwards`, percent(own), peer(percent), "", `≥ ${bar * 100} %`, own.share >= bar]);
  }
  return rows.map((row) => [...row.slice(0, 5), row[5] ? "ok" : "MISSED"]);
}
