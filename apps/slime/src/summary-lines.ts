import { basename, relative } from "node:path";
import type { RunPaths, RunSummary } from "@slime/training";

const number = (value: number): string => Math.round(value).toLocaleString("en-US");
const seconds = (ms: number): string => `${(ms / 1_000).toFixed(1)} s`;

/** What a finished run came to, where its things are, and what to try next. `slime`: the command as a person here types it. */
export function summaryLines(paths: RunPaths, summary: RunSummary, slime: string): readonly string[] {
  const here = (path: string) => relative(process.cwd(), path) || ".";
  const root = here(paths.root);
  const rate = (tokens: number) => (summary.wallMs > 0 ? `${number((1_000 * tokens) / summary.wallMs)}/s` : "–");
  return [
    "",
    `run ${summary.runId} finished: ${number(summary.rollouts)} rollouts, ${number(summary.step)} optimizer steps in ${seconds(summary.wallMs)}${summary.attempt > 1 ? ` (attempt ${summary.attempt})` : ""}`,
    ...evalLines(summary),
    `  reward        ${summary.reward === null ? "–" : summary.reward.toFixed(3)} (mean of the last rollout)`,
    `  tokens        generated ${number(summary.generatedTokens)} (${rate(summary.generatedTokens)}), trained ${number(summary.trainedTokens)} (${rate(summary.trainedTokens)})`,
    `  time          generating ${seconds(summary.generationMs)}, training ${seconds(summary.trainingMs)}, both at once ${seconds(summary.overlapMs)}; largest lag ${summary.lagMax}`,
    `  checkpoint    ${summary.checkpoint === null ? "none" : here(summary.checkpoint)} (model/ is a Hugging Face directory)`,
    `  metrics       ${here(paths.metrics)}    samples ${here(paths.samples)}    journal ${here(paths.journal)}`,
    `  next          ${slime} audit ${root}`,
    `                ${slime} samples ${root} --step ${Math.max(0, summary.rollouts - 1)} --sort reward`,
    `                ${slime} runs`,
    ...(summary.failedPrompts > 0
      ? [`  note          ${summary.failedPrompts} prompts failed and were dropped: see ${basename(paths.ledger)}`]
      : []),
  ];
}

function evalLines(summary: RunSummary): readonly string[] {
  const [first, last] = [summary.evals[0], summary.evals.at(-1)];
  if (first === undefined || last === undefined) return [];
  const names = Object.keys(last.values).filter((name) => /^eval\/[^/]+$/.test(name) && !/-(truncated_ratio|pass@\d+)$/.test(name));
  return names.map((name) => {
    const [from, to] = [first.values[name] ?? 0, last.values[name] ?? 0];
    return `  ${name.padEnd(14)}${first === last ? to.toFixed(3) : `${from.toFixed(3)} after ${first.rolloutId} rollouts, ${to.toFixed(3)} after ${last.rolloutId}`}`;
  });
}
