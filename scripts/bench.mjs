#!/usr/bin/env node
// npm run bench [-- --only NAME,… --json FILE]: every number that is promised, each against its peer of the same run, one after another.
// Exit code 1 when a bar is missed or a bench fails.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchLine, runNode } from "./lib/child.mjs";
import { busyNote, machineFacts, tableLines } from "./lib/machine.mjs";
import { build, install, root } from "./lib/setup.mjs";

const benchMsMax = 900_000;
const perSecond = (value) => `${Math.round(value).toLocaleString("en-US")}/s`;
const percent = (value) => `${value.toFixed(1)} %`;
const seconds = (ms) => `${(ms / 1_000).toFixed(1)} s`;
const atLeast = (metric, ours, peer, value, bar) => ({ metric, ours, peer, ratio: percent(value), bar: `≥ ${bar} %`, ok: value >= bar });
const atMost = (metric, ours, peer, ratio, value, bar, unit = "") => ({
  metric,
  ours,
  peer,
  ratio,
  bar: `≤ ${bar}${unit}`,
  ok: value <= bar,
});
const calls = (what, line) => [
  atLeast(
    `${what}, one at a time`,
    perSecond(line.callSync),
    `bare echo ${perSecond(line.echoSync)}`,
    line.syncPercentOfEcho,
    line.syncBar,
  ),
  atLeast(
    `${what}, 1,000 in flight`,
    perSecond(line.callFlight),
    `bare echo ${perSecond(line.echoFlight)}`,
    line.inFlightPercentOfEcho,
    line.inFlightBar,
  ),
];

/** Each prints one JSON line, bars included; `rows` reads it. */
const benches = [
  { name: "actor", file: "packages/runtime/bench/calls.ts", rows: (line) => calls("actor calls 1:1", line) },
  { name: "rpc", file: "packages/rpc/bench/calls.ts", rows: (line) => calls("rpc calls", line) },
  {
    name: "store",
    file: "packages/object-store/bench/objects.ts",
    rows: (line) => [
      atLeast("put 800 MB", `${line.putGBs} GB/s`, `memcpy ${line.memcpyGBs} GB/s`, line.putPercentOfMemcpy, line.bar),
      atLeast("get 800 MB", `${line.getGBs} GB/s`, `memcpy ${line.memcpyGBs} GB/s`, line.getPercentOfMemcpy, line.bar),
    ],
  },
  {
    name: "embedded",
    file: "packages/embedded/bench/train-step.ts",
    rows: (line) => [
      atLeast("embedded train step", `${line.gflops} GFLOP/s`, `gemm peak ${line.gemmPeakGflops} GFLOP/s`, line.percentOfPeak, line.bar),
    ],
  },
  {
    name: "lag",
    file: "apps/slime/bench/loop-lag.ts",
    rows: (line) => [
      atMost(
        `driver's loop lag p99, ${line.samples} × ${line.tokens} tokens`,
        `${line.lagP99Ms} ms`,
        `max ${line.lagMaxMs} ms, ${line.megabytesPerSecond} MB/s of replies`,
        "–",
        line.lagP99Ms,
        line.barMs,
        " ms",
      ),
    ],
  },
  {
    name: "async",
    file: "apps/slime/bench/async-balance.ts",
    rows: (line) => [
      atMost(
        "bare generation and training apart",
        `generation ${seconds(line.bareGenerationMs)}`,
        `training ${seconds(line.bareTrainingMs)}`,
        percent(line.balancePercent),
        line.balancePercent,
        line.bars.balancePercentMax,
        " %",
      ),
      atMost(
        "train-async over train, wall time",
        seconds(line.asyncMs),
        `train ${seconds(line.syncMs)}`,
        line.wallRatio.toFixed(3),
        line.wallRatio,
        line.bars.wallRatioMax,
      ),
      atMost(
        "train-async, recorded staleness",
        String(line.stalenessMax),
        `slime plan says ${line.lagPlanned}`,
        "–",
        line.stalenessMax,
        line.lagPlanned,
      ),
    ],
  },
];

const { values } = parseArgs({ options: { only: { type: "string", multiple: true }, json: { type: "string" } } });
const only = (values.only ?? []).flatMap((names) => names.split(","));
const unknown = only.filter((name) => !benches.some((bench) => bench.name === name));
if (unknown.length > 0) {
  process.stderr.write(`--only ${unknown.join(",")}: no such bench; there are ${benches.map(({ name }) => name).join(", ")}\n`);
  process.exit(2);
}
install();
build();
const busy = busyNote();
if (busy !== null) process.stderr.write(`${busy}\n`);

const results = [];
for (const { name, file, rows } of benches.filter(({ name }) => only.length === 0 || only.includes(name))) {
  process.stderr.write(`${name}: ${file} …\n`);
  const line = benchLine(await runNode(["--import", "tsx", join(root, file)], { msMax: benchMsMax }));
  if (line === null) results.push({ name, rows: [{ metric: name, ours: "failed", peer: "", ratio: "–", bar: "", ok: false }], line: null });
  else results.push({ name, rows: rows(line), line });
}

const all = results.flatMap((result) => result.rows);
const head = ["metric", "ours", "peer (same run)", "ratio", "bar", ""];
const facts = machineFacts();
process.stdout.write(
  `\n${tableLines([head, ...all.map((row) => [row.metric, row.ours, row.peer, row.ratio, row.bar, row.ok ? "ok" : "MISSED"])]).join("\n")}\n`,
);
process.stdout.write(
  `\n${facts.cpu}, ${facts.cores} cores, node ${facts.node}, ${facts.commit.slice(0, 12)}${facts.changed ? " with changes" : ""}, ${facts.date}\n`,
);
if (values.json !== undefined) writeFileSync(values.json, `${JSON.stringify({ ...facts, busy, results }, null, 1)}\n`);
process.exit(all.every((row) => row.ok) ? 0 : 1);
