import { systemClock } from "@slime/core";
import { type Command, InvalidArgumentError, Option } from "commander";
import { interruptedExitCode } from "../client/follow-job.js";
import { runGenerate } from "../generate/run-generate.js";
import type { GenerateFlags } from "../generate/settings.js";
import { stopOnSignals } from "../stop-on-signals.js";

/** Adds `slime generate`. */
export function register(program: Command): void {
  program
    .command("generate")
    .description("answer prompts from a model's directory, or from an engine that runs; needs no cluster")
    .option("--hf-checkpoint <dir>", "the model: a Hugging Face directory, a run's checkpoints/step-N/model for one")
    .option("--prompt <text>", "what it shall answer; may be given more than once", collected)
    .option("--prompt-file <file>", "one prompt: the whole file (- for standard input); or many: FILE.jsonl, a prompt or chat a line")
    .option("--input-key <name>", "field of FILE.jsonl that holds the prompt (default: input, else prompt)")
    .option("--chat", "put prompts through the model's chat template (default where it has one)")
    .option("--no-chat", "continue prompts as they are")
    .option("--system <text>", "system message of the chat")
    .option("--temperature <t>", "0: the likeliest answer; above: drawn by chance", atLeast0, 0)
    .option("--top-p <p>", "draw from the likeliest tokens of this mass", share, 1)
    .option("--top-k <k>", "draw from the k likeliest tokens; -1: from all", topK, -1)
    .option("--max-new-tokens <n>", "longest answer (default: 256, or what the model's context leaves)", positive)
    .option("--stop <text>", "end the answer before this text; may be given more than once", collected)
    .option("--n <n>", "answers to each prompt", positive, 1)
    .option("--seed <n>", "the same seed draws the same answers (SGLang: with --sglang-enable-deterministic-inference)", whole)
    .option("--json", "one JSON object an answer, with token ids and log-probs")
    .addOption(new Option("--rollout-backend <name>", "what computes (default: embedded, on the CPU)").choices(["embedded", "sglang"]))
    .option("--sglang-python <file>", "Python that has SGLang (default: python3)")
    .option("--num-gpus <n>", "GPUs of the SGLang server (default: 1 where there is one)", whole)
    .option("--url <url>", "ask an engine or router that runs: http://127.0.0.1:30000")
    .option("--timeout-secs <s>", "longest wait for an answer", positive, 600)
    .argument("[flags...]", "--sglang-NAME VALUE: any setting of the SGLang server")
    .allowUnknownOption()
    .addHelpText(
      "after",
      `
Examples:
  slime generate --hf-checkpoint models/smollm2 --prompt "What is the capital of France?"
  slime generate --hf-checkpoint outputs/sort/checkpoints/step-0000250/model --no-chat --prompt "4172="
  git diff | slime generate --hf-checkpoint models/smollm2 --system "Write a commit message for this change."
  slime generate --hf-checkpoint models/smollm2 --prompt "Tell me a joke." --n 3 --temperature 0.8 --seed 1
  slime generate --hf-checkpoint models/smollm2 --prompt-file questions.jsonl --json > answers.jsonl
  slime generate --hf-checkpoint models/smollm2 --rollout-backend sglang --sglang-python ~/sglang/bin/python --prompt "Hi"
  slime generate --url http://127.0.0.1:30000 --prompt "Hi"

Answers go to standard output as they are made; everything else goes to standard error. Ctrl-C ends it and what it started.
A log-prob is that of the token under softmax(logits / temperature) over the whole vocabulary.`,
    )
    .action((words: string[], flags: GenerateFlags) => generate(flags, words));
}

async function generate(flags: GenerateFlags, words: readonly string[]): Promise<void> {
  using stop = stopOnSignals(() => {});
  try {
    await runGenerate(flags, words, {
      stdin: process.stdin,
      write: (text) => void process.stdout.write(text),
      terminal: process.stdout.isTTY === true,
      status: process.stderr.isTTY === true ? (text) => void process.stderr.write(text) : null,
      clock: systemClock,
      signal: stop.signal,
    });
  } catch (error) {
    if (!stop.signal.aborted) throw error;
    process.stderr.write("slime: stopped\n");
    process.exitCode = interruptedExitCode;
  }
}

function collected(text: string, before: readonly string[] | undefined): readonly string[] {
  return [...(before ?? []), text];
}

function number(text: string, is: (value: number) => boolean, must: string): number {
  const value = Number(text);
  if (text.trim() !== "" && is(value)) return value;
  throw new InvalidArgumentError(`must be ${must}`);
}

const atLeast0 = (text: string) => number(text, (value) => Number.isFinite(value) && value >= 0, "a number of 0 or more");
const share = (text: string) => number(text, (value) => value > 0 && value <= 1, "above 0 and at most 1");
const topK = (text: string) =>
  number(text, (value) => Number.isInteger(value) && (value === -1 || value > 0), "-1 or a whole number above 0");
const positive = (text: string) => number(text, (value) => Number.isSafeInteger(value) && value > 0, "a whole number above 0");
const whole = (text: string) => number(text, (value) => Number.isSafeInteger(value) && value >= 0, "a whole number of 0 or more");
