/**
 * What `slime train-async` gains over `slime train` on examples/async-balance: equal samples and optimizer steps, one engine, one
 * trainer, each run a job of its own on a real cluster of this machine. Everything is read from what the runs recorded: spans.jsonl
 * (who did what when), metrics.jsonl (reward, staleness), summary.json (wall time of the loop).
 * Bare generation and bare training are the sync run's: there one waits while the other works.
 * Bars: they differ by at most 20 %, wall time ratio ≤ 0.8, staleness ≤ the lag `slime plan --async` prints; with several seeds the means
 * of the final reward differ by less than 2 standard deviations.
 * Prints one JSON line. After a build: `node --import tsx apps/slime/bench/async-balance.ts [--seeds 1,2,3] [--config FILE] [-- FLAGS]`.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { systemClock, systemRandom } from "@slime/core";
import { busyMs, overlapMs, type RunSummary, type Span } from "@slime/training";
import { followJob } from "../dist/client/follow-job.js";
import { headClient } from "../dist/client/head-client.js";
import { shellLine } from "../dist/client/shell-words.js";
import { startLocalCluster } from "../dist/local-cluster.js";
import { stopOnSignals } from "../dist/stop-on-signals.js";

const bars = { balancePercentMax: 20, wallRatioMax: 0.8, rewardDistanceMax: 2 };
/** Rollouts whose mean reward is a run's final reward: one rollout's alone is noise. */
const finalRollouts = 5;
const timeoutMs = 1_800_000;
const root = fileURLToPath(new URL("../../..", import.meta.url));
const slime = join(root, "apps", "slime", "bin", "slime.mjs");

interface RunFacts {
  readonly mode: "train" | "train-async";
  readonly seed: number;
  readonly wallMs: number;
  /** Prompts consumed, from the ledger. */
  readonly prompts: number;
  readonly steps: number;
  readonly generationMs: number;
  readonly trainingMs: number;
  readonly pushMs: number;
  readonly overlapMs: number;
  readonly reward: number;
  readonly stalenessMax: number;
}

const { values, positionals } = parseArgs({
  options: {
    seeds: { type: "string", default: "1234" },
    config: { type: "string", default: "examples/async-balance/run.yaml" },
    keep: { type: "boolean", default: false },
  },
  allowPositionals: true,
});
const seeds = values.seeds.split(",").map(Number);
const home = mkdtempSync(join(tmpdir(), "slime-bench-"));
// Ctrl-C ends the cluster too.
using stop = stopOnSignals(() => process.stderr.write("stopping: ending the cluster …\n"));
const signal = AbortSignal.any([stop.signal, AbortSignal.timeout(timeoutMs)]);
try {
  const runs: RunFacts[] = [];
  {
    await using cluster = await startLocalCluster({
      home: join(home, "cluster"),
      workers: 2,
      gpusPerWorker: 1,
      clock: systemClock,
      signal,
    });
    const head = headClient(`http://${cluster.httpAddress}`);
    for (const seed of seeds) {
      for (const mode of ["train", "train-async"] as const) {
        const runDir = join(home, `${mode}-${seed}`);
        const words = ["slime", mode, "--config", resolve(values.config), "--seed", String(seed), "--run-dir", runDir, ...positionals];
        const { submission_id: job } = await head.submit({ entrypoint: shellLine(words), runtime_env: { working_dir: root } });
        let output = "";
        const end = await followJob(head, job, {
          write: (text) => (output += text),
          notice: () => {},
          clock: systemClock,
          random: systemRandom,
          signal,
        });
        if (end.state !== "SUCCEEDED")
          throw new Error(`slime ${mode}, seed ${seed}: ${end.state}: ${end.message}\n${output.slice(-2_000)}`);
        const facts = factsOf(mode, seed, runDir);
        process.stderr.write(
          `${mode} seed ${seed}: ${(facts.wallMs / 1_000).toFixed(1)} s, generating ${(facts.generationMs / 1_000).toFixed(1)}, training ${(facts.trainingMs / 1_000).toFixed(1)}, pushing ${(facts.pushMs / 1_000).toFixed(1)}, both ${(facts.overlapMs / 1_000).toFixed(1)}; reward ${facts.reward.toFixed(3)}, staleness ≤ ${facts.stalenessMax}\n`,
        );
        runs.push(facts);
      }
    }
  }
  console.log(JSON.stringify({ bench: "slime.async", ...compared(runs), bars, runs }));
} finally {
  if (values.keep) process.stderr.write(`kept: ${home}\n`);
  else rmSync(home, { recursive: true, force: true });
}

/** One run out of its own records. */
function factsOf(mode: RunFacts["mode"], seed: number, runDir: string): RunFacts {
  const summary = JSON.parse(readFileSync(join(runDir, "summary.json"), "utf8")) as RunSummary;
  const spans = lines<Span>(join(runDir, "spans.jsonl"));
  const rollouts = lines<Readonly<Record<string, number>>>(join(runDir, "metrics.jsonl")).filter(
    (record) => "rollout/raw_reward" in record,
  );
  const consumed = lines<{ readonly kind?: string; readonly ids?: readonly string[] }>(join(runDir, "ledger.jsonl")).filter(
    ({ kind }) => kind === "consume",
  );
  return {
    mode,
    seed,
    wallMs: summary.wallMs,
    prompts: consumed.reduce((sum, { ids }) => sum + (ids?.length ?? 0), 0),
    steps: summary.step,
    generationMs: busyMs(spans, "generation"),
    trainingMs: busyMs(spans, "training"),
    pushMs: busyMs(spans, "push"),
    overlapMs: overlapMs(spans, "generation", "training"),
    reward: mean(rollouts.slice(-finalRollouts).map((record) => record["rollout/raw_reward"] ?? Number.NaN)),
    stalenessMax: Math.max(...rollouts.map((record) => record["rollout/staleness/max"] ?? Number.NaN)),
  };
}

function compared(runs: readonly RunFacts[]) {
  const [sync, async] = [runs.filter(({ mode }) => mode === "train"), runs.filter(({ mode }) => mode === "train-async")];
  const unequal = sync.filter((run, at) => run.steps !== async[at]?.steps || run.prompts !== async[at].prompts);
  if (unequal.length > 0) throw new Error(`unequal work: ${JSON.stringify(runs)}`);
  const [generationMs, trainingMs] = [mean(sync.map((run) => run.generationMs)), mean(sync.map((run) => run.trainingMs))];
  const [syncMs, asyncMs] = [mean(sync.map((run) => run.wallMs)), mean(async.map((run) => run.wallMs))];
  const [a, b] = [sync.map(({ reward }) => reward), async.map(({ reward }) => reward)];
  const spread = Math.sqrt((variance(a) + variance(b)) / 2);
  return {
    seeds: sync.map(({ seed }) => seed),
    bareGenerationMs: Math.round(generationMs),
    bareTrainingMs: Math.round(trainingMs),
    balancePercent: round((100 * Math.abs(generationMs - trainingMs)) / Math.max(generationMs, trainingMs)),
    syncMs: Math.round(syncMs),
    asyncMs: Math.round(asyncMs),
    wallRatio: round(asyncMs / syncMs, 1_000),
    overlapPercentOfAsync: round((100 * mean(async.map((run) => run.overlapMs))) / asyncMs),
    stalenessMax: Math.max(...async.map((run) => run.stalenessMax)),
    lagPlanned: plannedLag(),
    rewardSync: round(mean(a), 1_000),
    rewardAsync: round(mean(b), 1_000),
    rewardSpread: runs.length > 2 ? round(spread, 10_000) : null,
    rewardDistance: runs.length > 2 ? round(Math.abs(mean(a) - mean(b)) / spread) : null,
  };
}

/** The lag as a user is told it before anything starts. */
function plannedLag(): number {
  const plan = execFileSync(process.execPath, [slime, "plan", "--async", "--config", resolve(values.config), ...positionals], {
    cwd: root,
    encoding: "utf8",
  });
  const found = /at most (\d+) weight versions/.exec(plan)?.[1];
  if (found === undefined) throw new Error(`slime plan says no lag:\n${plan}`);
  return Number(found);
}

function lines<T>(path: string): readonly T[] {
  return readFileSync(path, "utf8")
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as T);
}

function mean(of: readonly number[]): number {
  return of.reduce((sum, value) => sum + value, 0) / of.length;
}

function variance(of: readonly number[]): number {
  const middle = mean(of);
  return of.reduce((sum, value) => sum + (value - middle) ** 2, 0) / Math.max(1, of.length - 1);
}

function round(value: number, per = 10): number {
  return Math.round(value * per) / per;
}
