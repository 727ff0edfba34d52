#!/usr/bin/env node
// npm run bench:router [-- --quick --json FILE]: our router and the real sglang_router in front of the same four engines that cost nothing,
// one after the other and again in the other order. Requests per CPU second, latency, memory in flight, an engine killed, an engine
// stopped. Exit code 1 when a bar is missed. Without a real router (no Python, no registry) its half is left out, aloud.
import { fork, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { createServer } from "node:net";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import { busyNote, machineFacts, tableLines } from "./lib/machine.mjs";
import { makeOnce, realCache, step } from "./lib/python-env.mjs";
import { perCpuSecond, speedTable, verdicts, wrongs } from "./lib/router-report.mjs";
import { build, install, root } from "./lib/setup.mjs";

const realVersion = "0.3.2";
const { values } = parseArgs({ options: { quick: { type: "boolean", default: false }, json: { type: "string" } } });
const quick = values.quick;
const repetitions = quick ? 1 : 2;
const warmMs = 500;
const windowMs = quick ? 1_000 : 1_500;
const clientCounts = quick ? [1, 32, 512] : [1, 32, 512, 4_096];
const inFlight = quick ? 2_000 : 8_000;
const settleMsMax = 60_000;
const workloads = [
  { name: "1 KB", bar: 3, order: { kind: "json", bytes: 1_024, delayMs: 0 }, stream: false },
  { name: "60 KB", bar: 2.5, order: { kind: "json", bytes: 60 << 10, delayMs: 0 }, stream: false },
  { name: "64-chunk stream", bar: 3, order: { kind: "stream", chunks: 64, overMs: 0 }, stream: true },
];

const mean = (all) => all.reduce((sum, value) => sum + value, 0) / all.length;
const say = (text) => process.stderr.write(`${text}\n`);
const children = new Set();

/** A bench program as a process that talks over IPC and ends with us. */
function start(file, onExit = () => {}) {
  const child = fork(join(root, "packages", "router", "bench", file), [], {
    execArgv: file.endsWith(".ts") ? ["--import", "tsx"] : [],
    cwd: root,
  });
  children.add(child);
  child.once("exit", () => {
    children.delete(child);
    onExit();
  });
  return child;
}

async function answerOf(child) {
  const [message] = await once(child, "message");
  return message;
}

async function startEngines() {
  const engines = Array.from({ length: 4 }, () => start("fake-engine.ts"));
  const ports = await Promise.all(engines.map(answerOf));
  return engines.map((child, at) => ({ child, url: `http://127.0.0.1:${ports[at].port}` }));
}

async function ask(url, path, options = {}) {
  const reply = await fetch(url + path, { ...options, signal: AbortSignal.timeout(10_000) });
  return { status: reply.status, json: await reply.json().catch(() => null) };
}

/** Waits until `isSo` says so. */
async function until(what, isSo, msMax = settleMsMax) {
  const end = performance.now() + msMax;
  while (!(await isSo().catch(() => false))) {
    if (performance.now() > end) throw new Error(`${what}: not after ${msMax / 1_000} s`);
    await sleep(50);
  }
}

async function register(url, engines) {
  for (const engine of engines)
    await ask(url, "/workers", {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ url: engine.url }),
    });
  await until(`${url} takes ${engines.length} engines`, async () => {
    const { status, json } = await ask(url, "/readiness");
    return status === 200 && json.healthy_workers === engines.length;
  });
}

async function startOurs(engines) {
  const child = start("our-router.mjs");
  const { url } = await answerOf(child);
  await register(url, engines);
  return { name: "ours", url, pid: child.pid, stop: () => stop(child) };
}

async function freePort() {
  const server = createServer().listen(0, "127.0.0.1");
  await once(server, "listening");
  const { port } = server.address();
  server.close();
  return port;
}

/** As slime runs it: no circuit breaker, no health check, a timeout of four hours. */
async function startReal({ python, env }, engines) {
  const [port, metricsPort] = [await freePort(), await freePort()];
  const args = ["--host", "127.0.0.1", "--port", port, "--prometheus-port", metricsPort, "--policy", "round_robin", "--log-level", "error"];
  const off = ["--disable-circuit-breaker", "--disable-health-check", "--request-timeout-secs", "14400"];
  const child = spawn(python, ["-m", "sglang_router.launch_router", ...args, ...off].map(String), {
    stdio: "ignore",
    env: { ...process.env, ...env },
  });
  children.add(child);
  child.once("exit", () => children.delete(child));
  const url = `http://127.0.0.1:${port}`;
  await until("sglang_router starts", async () => (await ask(url, "/workers")).status === 200);
  await register(url, engines);
  return { name: "sglang_router", url, pid: child.pid, stop: () => stop(child) };
}

async function stop(child) {
  if (child.exitCode !== null || child.signalCode !== null) return;
  child.kill("SIGKILL");
  await once(child, "exit");
}

/** The Python that has sglang_router: named by SLIME_REAL_ENV, or an environment of its own in the cache. Null, aloud, when there is none. */
async function realPython() {
  const given = process.env.SLIME_REAL_ENV;
  if (given) {
    const { python, env } = JSON.parse(readFileSync(given, "utf8"));
    return { python, env: env ?? {} };
  }
  const folder = join(realCache(), `sglang-router-${realVersion}`);
  try {
    await makeOnce(folder, 600_000, async () => {
      say(`sglang_router ${realVersion} into ${folder}`);
      await step("virtual environment", 60_000, ["python3", "-m", "venv", folder]);
      const pip = [join(folder, "bin", "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"];
      await step("sglang-router", 300_000, [...pip, `sglang-router==${realVersion}`]);
    });
    return { python: join(folder, "bin", "python"), env: {} };
  } catch (error) {
    // No venv, no wheel for this system, no network: each says so itself.
    say(String(error));
    return null;
  }
}

const portOf = (url) => Number(new URL(url).port);
const tell = (engines, order) => engines.forEach(({ child }) => child.connected && child.send(order));

async function load(generator, router, order) {
  const done = answerOf(generator);
  generator.send({ port: portOf(router.url), pid: router.pid ?? process.pid, warmMs, windowMs, stream: false, once: false, ...order });
  return done;
}

const residentKib = (pid) => Number(/^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1] ?? Number.NaN);

/** Speed: every workload and number of clients, the routers in turn, after each has seen every workload: compilers need a while. */
async function speed(generator, engines, routers) {
  const rows = [];
  for (const workload of workloads) {
    tell(engines, workload.order);
    for (const router of routers) await load(generator, router, { clients: 32, stream: workload.stream });
  }
  for (let repetition = 0; repetition < repetitions; repetition++) {
    for (const workload of workloads) {
      tell(engines, workload.order);
      for (const clients of clientCounts) {
        const bare = { name: "bare engine", url: engines[0].url, pid: engines[0].child.pid };
        const inTurn = repetition % 2 === 0 ? routers : [...routers].reverse();
        const subjects = clients === 1 ? [bare, ...inTurn] : inTurn;
        // One client's latency is the machine's mood as much as the router's: more turns, the quietest counts.
        const turns = clients === 1 ? 3 : 1;
        const results = new Map(subjects.map((router) => [router, []]));
        for (let turn = 0; turn < turns; turn++)
          for (const router of subjects) results.get(router).push(await load(generator, router, { clients, stream: workload.stream }));
        for (const [router, runs] of results) {
          const result = merged(runs);
          rows.push({ repetition, workload: workload.name, clients, router: router.name, ...result, perTenth: undefined });
          const micros = result.answered === 0 ? "–" : Math.round(1e6 / perCpuSecond(result));
          say(
            `  ${workload.name}, ${clients} clients, ${router.name}: ${Math.round(result.answered / result.seconds)}/s, ${micros} µs each`,
          );
        }
      }
    }
  }
  return rows;
}

/** Several turns as one: sums, and latencies of the quietest. */
function merged(runs) {
  const sum = (name) => runs.reduce((total, run) => total + run[name], 0);
  const sums = ["answered", "seconds", "cpuSeconds", "lost", "brokenOff", "errorEvents", "errorEventsTwice", "refused"];
  const quietest = runs.toSorted((a, b) => (a.p50Ms ?? Infinity) - (b.p50Ms ?? Infinity))[0];
  return { ...quietest, ...Object.fromEntries(sums.map((name) => [name, sum(name)])) };
}

/** Memory of a fresh, warm router with `inFlight` requests waiting in the engines. */
async function memory(generator, engines, startRouter) {
  tell(engines, { kind: "json", bytes: 1_024, delayMs: 0 });
  const router = await startRouter(engines);
  await load(generator, router, { clients: 32, windowMs: 2_000 });
  await sleep(500);
  const before = residentKib(router.pid);
  tell(engines, { kind: "held" });
  const done = load(generator, router, { clients: inFlight, once: true });
  await until(`${inFlight} requests reach the engines`, async () => {
    let held = 0;
    for (const { child } of engines) {
      child.send({ kind: "count" });
      held += (await answerOf(child)).held;
    }
    return held === inFlight;
  });
  const during = residentKib(router.pid);
  tell(engines, { kind: "json", bytes: 1_024, delayMs: 0 });
  const result = await done;
  await router.stop();
  const wrong = result.lost + result.brokenOff + result.refused;
  return { router: router.name, beforeMib: before / 1_024, duringMib: during / 1_024, kibPerRequest: (during - before) / inFlight, wrong };
}

/** An engine is killed or stopped at 2 s of a closed loop; what the clients see, and how fast it goes on. */
async function fault(generator, startRouter, { name, order, stream, signal, secondsAfter, clients }) {
  const engines = await startEngines();
  tell(engines, order);
  const router = await startRouter(engines);
  const done = load(generator, router, { clients, stream, windowMs: 2_000 + secondsAfter * 1_000 });
  await sleep(warmMs + 2_000);
  engines[1].child.kill(signal);
  const result = await done;
  if (signal === "SIGSTOP") engines[1].child.kill("SIGCONT");
  await router.stop();
  await Promise.all(engines.map(({ child }) => stop(child)));
  const rate = (from, to) => mean(Array.from({ length: to - from }, (_, at) => result.perTenth[from + at] ?? 0)) * 10;
  const before = rate(5, 18);
  const last = 20 + secondsAfter * 10;
  const share = rate(last - 20, last) / before;
  say(`  ${name}, ${router.name}: ${wrongs(result)}; ${before.toFixed(0)}/s before, ${(share * 100).toFixed(0)} % at the end`);
  return { name, router: router.name, before, share, ...result, perTenth: undefined };
}

const faults = [
  {
    name: "kill an engine, 50 ms replies",
    order: { kind: "json", bytes: 1_024, delayMs: 50 },
    stream: false,
    signal: "SIGKILL",
    secondsAfter: quick ? 4 : 10,
    clients: 64,
  },
  {
    name: "kill an engine, 500 ms streams",
    order: { kind: "stream", chunks: 64, overMs: 500 },
    stream: true,
    signal: "SIGKILL",
    secondsAfter: quick ? 4 : 10,
    clients: 32,
  },
  {
    name: "stop an engine, 50 ms replies",
    order: { kind: "json", bytes: 1_024, delayMs: 50 },
    stream: false,
    signal: "SIGSTOP",
    secondsAfter: quick ? 14 : 18,
    clients: 64,
  },
];

async function measure() {
  const python = await realPython();
  if (python === null)
    say(`SKIPPED: sglang_router ${realVersion} cannot be had here (python3 with venv and a package registry); ours alone is measured`);
  const starts = python === null ? [startOurs] : [startOurs, (engines) => startReal(python, engines)];
  const generator = start("load.ts");
  const engines = await startEngines();
  const routers = [];
  for (const startRouter of starts) routers.push(await startRouter(engines));
  const speeds = await speed(generator, engines, routers);
  for (const router of routers) await router.stop();
  const memories = [];
  for (const startRouter of starts) {
    const row = await memory(generator, engines, startRouter);
    memories.push(row);
    say(`  ${inFlight} in flight, ${row.router}: ${row.kibPerRequest.toFixed(1)} KiB each`);
  }
  await Promise.all(engines.map(({ child }) => stop(child)));
  const faultRows = [];
  for (const one of faults) for (const startRouter of starts) faultRows.push(await fault(generator, startRouter, one));
  return { real: python !== null, speeds, memories, faultRows };
}

const endAll = () => {
  for (const child of children) {
    child.kill("SIGCONT");
    child.kill("SIGKILL");
  }
};
process.on("exit", endAll);
for (const signal of ["SIGINT", "SIGTERM"]) process.on(signal, () => process.exit(130));

if (!existsSync("/proc/self/stat")) {
  say("SKIPPED: npm run bench:router reads CPU time and memory of other processes from /proc, which this system lacks");
  process.exit(0);
}
install();
build();
const busy = busyNote();
if (busy !== null) say(busy);
const facts = machineFacts();
const results = { ...(await measure()), workloads, clientCounts, faults, inFlight };
const rows = verdicts(results);
process.stdout.write(`\n${speedTable(results).join("\n")}\n`);
process.stdout.write(`\n${tableLines([["metric", "ours", "sglang_router", "ratio", "bar", ""], ...rows]).join("\n")}\n`);
process.stdout.write(
  `\n${facts.cpu}, ${facts.cores} cores, node ${facts.node}, ${facts.commit.slice(0, 12)}${facts.changed ? " with changes" : ""}, ${facts.date}\n`,
);
if (values.json !== undefined)
  writeFileSync(values.json, `${JSON.stringify({ ...facts, busy, quick, ...results, verdicts: rows }, null, 1)}\n`);
process.exit(rows.every((row) => row.at(-1) === "ok") ? 0 : 1);
