#!/usr/bin/env node
// npm run soak [-- NAME… --seeds 1,2,3]: what is too long for every run of the tests. Each writes soak/NAME.json: machine, commit, date,
// results, bars. Exit code 1 when a bar is missed or a run fails.
//   sort      the quickstart from scratch: it learns, in time, with every seed
//   shuffled  the same with rewards dealt out anew among the answers to a prompt: it does not
//   async     examples/async-balance: train-async against train
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { benchLine, runNode } from "./lib/child.mjs";
import { busyNote, machineFacts, tableLines } from "./lib/machine.mjs";
import { build, install, root } from "./lib/setup.mjs";

const runMsMax = 900_000;
const learns = { exactStartMax: 0.05, exactEndMin: 0.85, wallSecondsMax: 180 };
const learnsNothing = { exactEndMax: 0.1 };

/** `measure` gives its rows one after another, each with `ok`. */
const soaks = {
  sort: {
    bars: learns,
    async *measure(seeds) {
      for (const seed of seeds) {
        const run = await quickstart(seed, []);
        const ok = run.exactStart <= learns.exactStartMax && run.exactEnd >= learns.exactEndMin && run.wallSeconds <= learns.wallSecondsMax;
        yield { ...run, ok };
      }
    },
  },
  shuffled: {
    bars: learnsNothing,
    async *measure(seeds) {
      for (const seed of seeds) {
        const run = await quickstart(seed, ["--custom-rm-path", "examples/sort/shuffled-reward.ts", "--group-rm"]);
        yield { ...run, ok: run.evals.every(({ exact }) => exact <= learnsNothing.exactEndMax) };
      }
    },
  },
  async: {
    bars: { balancePercentMax: 20, wallRatioMax: 0.8, rewardDistanceMax: 2, staleness: "at most the lag slime plan prints" },
    async *measure(seeds) {
      const words = ["--import", "tsx", join(root, "apps/slime/bench/async-balance.ts"), "--seeds", seeds.join(",")];
      const found = benchLine(await runNode(words, { msMax: seeds.length * 2 * runMsMax }));
      if (found === null) throw new Error("apps/slime/bench/async-balance.ts failed");
      const { bars, ...line } = found;
      const inTime = line.balancePercent <= bars.balancePercentMax && line.wallRatio <= bars.wallRatioMax;
      const alike = line.rewardDistance === null || line.rewardDistance < bars.rewardDistanceMax;
      yield { ...line, ok: inTime && alike && line.stalenessMax <= line.lagPlanned };
    },
  },
};

const { values, positionals } = parseArgs({ options: { seeds: { type: "string", default: "1,2,3" } }, allowPositionals: true });
const names = positionals.length > 0 ? positionals : Object.keys(soaks);
const unknown = names.filter((name) => !(name in soaks));
if (unknown.length > 0) {
  process.stderr.write(`${unknown.join(", ")}: no such soak; there are ${Object.keys(soaks).join(", ")}\n`);
  process.exit(2);
}
const seeds = values.seeds.split(",").map(Number);
install();
build();
let failed = false;
for (const name of names) {
  const facts = machineFacts();
  const busy = busyNote();
  if (busy !== null) process.stderr.write(`${busy}\n`);
  process.stderr.write(`${name}, seeds ${seeds.join(", ")} …\n`);
  const results = [];
  for await (const row of soaks[name].measure(seeds)) results.push(row);
  mkdirSync(join(root, "soak"), { recursive: true });
  writeFileSync(
    join(root, "soak", `${name}.json`),
    `${JSON.stringify({ soak: name, ...facts, busy, seeds, bars: soaks[name].bars, results }, null, 1)}\n`,
  );
  const plain = (value) => (Array.isArray(value) ? `${value.length} of them` : String(value));
  const columns = Object.keys(results[0]).filter((key) => !["bench", "evals", "runs"].includes(key));
  process.stdout.write(
    `\n${name}\n${tableLines([columns, ...results.map((row) => columns.map((key) => (key === "ok" ? (row.ok ? "ok" : "MISSED") : plain(row[key]))))]).join("\n")}\nsoak/${name}.json\n\n`,
  );
  failed ||= results.some(({ ok }) => !ok);
}
process.exit(failed ? 1 : 0);

/** `slime quickstart` as a user runs it, cluster's start and end included; what it came to, from its own records. */
async function quickstart(seed, flags) {
  const home = mkdtempSync(join(tmpdir(), "slime-soak-"));
  const runDir = join(home, "run");
  const log = openSync(join(home, "output.log"), "w");
  try {
    const startedMs = performance.now();
    const words = ["quickstart", "--run-dir", runDir, "--", "--seed", String(seed), ...flags];
    const done = await runNode([join(root, "apps/slime/bin/slime.mjs"), ...words], { logFd: log, msMax: runMsMax });
    const wallSeconds = round((performance.now() - startedMs) / 1_000, 10);
    const summary = join(runDir, "summary.json");
    if (done.status !== 0 || !existsSync(summary))
      throw new Error(`seed ${seed} failed:\n${readFileSync(join(home, "output.log"), "utf8").slice(-3_000)}`);
    const { evals, rollouts, step, reward, lagMax } = JSON.parse(readFileSync(summary, "utf8"));
    const exact = evals.map((each) => ({ rollout: each.rolloutId, exact: round(each.values["eval/heldout"], 10_000) }));
    process.stderr.write(
      `seed ${seed}: greedy exact match ${exact.map((each) => each.exact.toFixed(3)).join(" → ")} in ${wallSeconds} s\n`,
    );
    return {
      seed,
      exactStart: exact[0].exact,
      exactEnd: exact.at(-1).exact,
      wallSeconds,
      rollouts,
      steps: step,
      trainReward: round(reward, 10_000),
      lagMax,
      evals: exact,
    };
  } finally {
    closeSync(log);
    rmSync(home, { recursive: true, force: true });
  }
}

function round(value, per) {
  return Math.round(value * per) / per;
}
