import { findRun, readRunRecord, readSamples, runPaths, type SampleRecord, type SampleSort } from "@slime/training";
import { type Command, InvalidArgumentError, Option } from "commander";
import { outputsDirectory } from "./train.js";

interface SamplesOptions {
  readonly step?: number;
  readonly sort: SampleSort;
  readonly eval?: true;
  readonly limit: number;
  readonly dir: string;
  readonly json?: true;
}

/** Adds `slime samples`. */
export function register(program: Command): void {
  program
    .command("samples")
    .description("prompts, answers, rewards and weight versions of one rollout")
    .argument("<run>", "run directory, or its name below --dir")
    .option("--step <n>", "rollout (or, with --eval, rollouts trained when it was evaluated); default: the newest", whole)
    .addOption(new Option("--sort <by>", "order").choices(["reward", "length", "index"]).default("index"))
    .option("--eval", "an evaluation's samples")
    .option("--limit <n>", "samples shown", whole, 20)
    .option("--dir <directory>", "where runs lie", outputsDirectory)
    .option("--json", "one JSON object a line")
    .addHelpText("after", "\nExamples:\n  slime samples outputs/sort-1 --sort reward\n  slime samples sort-1 --eval --step 50 --limit 5")
    .action(async (run: string, options: SamplesOptions) => {
      const root = await findRun(run, options.dir);
      const record = await readRunRecord(runPaths(root).runJson);
      const samples = await readSamples(
        runPaths(root, record?.config.save ?? null).samples,
        options.eval === true ? "eval" : "rollout",
        options.step ?? null,
        options.sort,
      );
      const shown = samples.slice(0, options.limit);
      if (options.json === true) process.stdout.write(shown.map((sample) => `${JSON.stringify(sample)}\n`).join(""));
      else
        process.stdout.write(
          `${shown.flatMap(sampleLines).join("\n")}\n${samples.length > shown.length ? `… ${samples.length - shown.length} more (--limit)\n` : ""}`,
        );
    });
}

/** One sample as a person reads it. What the model wrote is quoted, so that it cannot move the terminal's cursor. */
export function sampleLines(sample: SampleRecord): readonly string[] {
  const prompt =
    typeof sample.prompt === "string" ? sample.prompt : sample.prompt.map(({ role, content }) => `${role}: ${content}`).join("\n");
  const versions = sample.weightVersions.length === 0 ? "–" : sample.weightVersions.map((version) => `v${version}`).join(" → ");
  return [
    `${sample.instanceId} #${sample.index}  reward ${sample.reward === null ? "–" : sample.reward.toFixed(3)}  ${sample.status}  ${sample.responseLength} tokens  weights ${versions}${sample.failure === null ? "" : `  ${sample.failure}`}`,
    `  prompt    ${JSON.stringify(prompt)}`,
    `  response  ${JSON.stringify(sample.response)}${sample.label === null ? "" : `  (label ${JSON.stringify(sample.label)})`}`,
  ];
}

function whole(text: string): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 0) throw new InvalidArgumentError("must be a whole number");
  return value;
}
