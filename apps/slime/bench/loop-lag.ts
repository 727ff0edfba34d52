/**
 * The driver's event loop while 1,024 answers of 8,192 tokens with log-probs become a batch: real rollout workers on a real cluster
 * of this machine ask a process that answers as SGLang does, from JSON rendered before (≈ 304 KB a reply, so it is never what is waited
 * for); the driver uses the run's own `rolloutsOver` and `assembleBatch`. Bar: p99 of the loop's delay ≤ 50 ms.
 * Prints one JSON line. After a build: `node --import tsx apps/slime/bench/loop-lag.ts [samples] [tokens]`.
 */
import { type ChildProcess, fork } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { monitorEventLoopDelay } from "node:perf_hooks";
import { fileURLToPath } from "node:url";
import { silentLogger, systemClock } from "@slime/core";
import { routerBackoff } from "@slime/rollout";
import { actor, init } from "@slime/runtime";
import { assembleBatch, type GroupOutcome, type PromptGroup, type TrainGroup } from "@slime/training";
import { RolloutWorker } from "../dist/actors/rollout-worker.js";
import { startLocalCluster } from "../dist/local-cluster.js";
import { rolloutsOver } from "../dist/run/rollouts.js";
import { stopOnSignals } from "../dist/stop-on-signals.js";

const barMs = 50;
const samplesPerGroup = 8;
const workerCount = 2;
/** Requests a worker has in flight: as many as keep it busy, few enough that their replies fit in memory. */
const inFlight = 16;
const timeoutMs = 300_000;
const model = fileURLToPath(new URL("../../../examples/sort/model", import.meta.url));

const [, self = "", first = "1024", second = "8192"] = process.argv;
if (first === "engine") serveEngine(Number(second));
else await measure(Number(first), Number(second));

/** `/generate` answered with the same bytes each time. */
function serveEngine(tokens: number): void {
  const ids = Array.from({ length: tokens }, (_, at) => 10_000 + ((at * 7_919) % 90_000));
  const pairs = ids.map((id, at) => [-(((at * 104_729_000_003) % 1e10) + 1) / 1e10, id, null]);
  const reply = Buffer.from(
    JSON.stringify({
      text: "".padEnd(tokens * 4, "tok "),
      output_ids: ids,
      meta_info: {
        id: "fixed",
        finish_reason: { type: "length", length: tokens },
        prompt_tokens: 5,
        completion_tokens: tokens,
        cached_tokens: 0,
        weight_version: "1",
        weight_version_spans: [[1, 0, tokens]],
        output_token_logprobs: pairs,
      },
    }),
  );
  const server = createServer((request, response) => {
    request
      .resume()
      .on("end", () => response.writeHead(200, { "content-type": "application/json", "content-length": reply.length }).end(reply));
  });
  server.listen(0, "127.0.0.1", () => process.send?.({ port: (server.address() as AddressInfo).port, replyBytes: reply.length }));
}

async function measure(samples: number, tokens: number): Promise<void> {
  const home = mkdtempSync(join(tmpdir(), "slime-bench-"));
  let engine: ChildProcess | null = null;
  // Ctrl-C ends the cluster too.
  using stop = stopOnSignals(() => process.stderr.write("stopping: ending the cluster …\n"));
  const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(timeoutMs)]);
  try {
    engine = fork(self, ["engine", String(tokens)], { execArgv: process.execArgv });
    const [{ port, replyBytes }] = (await once(engine, "message")) as [{ port: number; replyBytes: number }];
    await using cluster = await startLocalCluster({
      home,
      workers: 1,
      gpusPerWorker: 0,
      clock: systemClock,
      signal,
    });
    const made = await rollout(cluster.headAddress, `http://127.0.0.1:${port}`, samples, tokens, signal);
    const megabytes = (samples * replyBytes) / 1e6;
    console.log(
      JSON.stringify({
        bench: "slime.loop-lag",
        samples,
        tokens,
        replyBytes,
        ...made,
        megabytesPerSecond: round(megabytes / made.seconds),
        barMs,
      }),
    );
  } finally {
    engine?.kill("SIGKILL");
    rmSync(home, { recursive: true, force: true });
  }
}

async function rollout(address: string, routerUrl: string, samples: number, tokens: number, signal: AbortSignal) {
  await using _session = await init({ address });
  const workers = Array.from({ length: workerCount }, (_, at) =>
    actor(RolloutWorker, {
      name: `rollout-worker-${at}`,
      resources: { CPU: 0.2 },
      concurrency: 64,
      concurrencyGroups: { control: 4 },
      args: [
        {
          routerUrl,
          hfCheckpoint: model,
          chatTemplateKwargs: {},
          reward: { kind: "rule", name: "exact_match" },
          rewardKey: null,
          evalRewardKey: null,
          rewardMsMax: 60_000,
          hookArgs: {},
          limits: { contextLength: 2 * tokens, requestMsMax: 60_000, resumesMax: 1, backoff: routerBackoff },
          concurrency: inFlight,
        },
      ],
    }),
  );
  await Promise.all(workers.map((worker) => worker.ready()));
  const rollouts = rolloutsOver(workers, { clock: systemClock, log: silentLogger });
  const groups: PromptGroup[] = Array.from({ length: samples / samplesPerGroup }, (_, at) => ({
    groupIndex: at,
    instanceId: `0:${at}`,
    prompt: "4172=",
    label: "1247",
    metadata: {},
  }));
  const ask = (some: readonly PromptGroup[], opId: string) =>
    rollouts.rollout({
      rolloutId: 0,
      opId,
      groups: some,
      samplesPerGroup,
      sampling: { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: tokens },
      samplingSeed: null,
      samplesDirectory: null,
      signal,
    });
  // Connections, tokenizers and compiled code are there before the clock starts.
  await rollouts.free((await ask(groups.slice(0, workerCount), "warm")).parts);

  const delay = monitorEventLoopDelay({ resolution: 1 });
  delay.enable();
  const startMs = performance.now();
  const result = await ask(groups, "measured");
  const assembleMs = performance.now();
  const batch = assembleBatch(result.groups.map(trainGroup), {
    estimator: "grpo",
    rewardsNormalization: true,
    grpoStdNormalization: true,
    globalBatchSize: samples,
    dataParallelSize: 8,
    packing: { kind: "dynamic", tokensPerGpuMax: 2 * tokens, balanceByFlops: false },
    balanceData: true,
  });
  const endMs = performance.now();
  // The loop comes round once more, so that assembly's own delay is counted.
  await new Promise((resolve) => setTimeout(resolve, 5));
  delay.disable();
  const rows = batch.steps.flatMap((step) => step.ranks.flatMap((rank) => rank.rows)).length;
  if (rows !== samples) throw new Error(`${rows} of ${samples} samples are in the batch`);
  await rollouts.free(result.parts);
  const ms = (nanoseconds: number) => round(nanoseconds / 1e6);
  return {
    seconds: round((endMs - startMs) / 1_000),
    assembleMs: round(endMs - assembleMs),
    parts: result.parts.length,
    lagP50Ms: ms(delay.percentile(50)),
    lagP99Ms: ms(delay.percentile(99)),
    lagMaxMs: ms(delay.max),
  };
}

function trainGroup(group: GroupOutcome): TrainGroup {
  if (group.kind === "failed") throw new Error(`${group.instanceId}: ${group.message}`);
  const { instanceId, groupIndex, samples, rows } = group;
  return { instanceId, groupIndex, samples, rows, masked: false };
}

function round(value: number): number {
  return Math.round(value * 10) / 10;
}
