import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { loadPromptCodec } from "@slime/data";
import { describe, expect, it } from "vitest";
import { realEnv } from "./real-env.js";

const { models, python, env, args, sglang } = realEnv();
const slime = fileURLToPath(new URL("../../apps/slime/bin/slime.mjs", import.meta.url));
/** Of a server's start on a busy machine, and an answer. */
const commandMs = 400_000;

interface Answer {
  readonly text: string;
  readonly outputIds: readonly number[];
  readonly outputLogProbs: readonly number[];
}

/** The command as a person gives it; resolves with what it wrote to standard output. */
function generate(words: readonly string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    execFile(
      process.execPath,
      [slime, "generate", ...words],
      { env: { ...process.env, ...env }, timeout: commandMs },
      (error, stdout, stderr) => (error === null ? resolve(stdout) : reject(new Error(`slime generate: ${error.message}\n${stderr}`))),
    );
  });
}

// Its start is warmed up by what it is asked.
const { skip_server_warmup: _, ...settings } = args;
const sglangFlags = Object.entries(settings).flatMap(([name, value]) => [
  `--sglang-${name.replaceAll("_", "-")}`,
  ...(value === true ? [] : [String(value)]),
]);

describe("slime generate on SmolLM2-135M-Instruct", () => {
  const question = ["--hf-checkpoint", models.smollm2, "--prompt", "What is the capital of France?"];
  const answers: Record<string, Answer> = {};

  it.each([
    ["the embedded engine", []],
    [`SGLang ${sglang}`, ["--rollout-backend", "sglang", "--sglang-python", python, ...sglangFlags]],
  ])(
    "%s answers",
    async (name, words) => {
      const answer = JSON.parse(await generate([...question, "--json", ...words])) as Answer;
      expect(answer.text).toContain("Paris");
      answers[name] = answer;
    },
    commandMs,
  );

  it("both give the same tokens and log-probs", () => {
    const [ours, theirs] = Object.values(answers);
    expect(ours?.outputIds).toEqual(theirs?.outputIds);
    ours?.outputLogProbs.forEach((logProb, i) => {
      expect(Math.abs(logProb - (theirs?.outputLogProbs[i] ?? Number.NaN))).toBeLessThan(1e-4);
    });
  });

  it("prints the text as it comes, and nothing else", { timeout: commandMs }, async () => {
    const [ours] = Object.values(answers);
    expect(await generate(question)).toBe(`${ours?.text}\n`);
  });

  it("its tokenizer and template give transformers' ids on the whole battery", async () => {
    const golden = fileURLToPath(new URL("../golden/smollm2-tokens.json", import.meta.url));
    const { texts, chats } = JSON.parse(readFileSync(golden, "utf8")) as {
      readonly texts: readonly { readonly text: string; readonly ids: readonly number[]; readonly decodedWithoutSpecial: string }[];
      readonly chats: readonly {
        readonly messages: readonly { readonly role: string; readonly content: string }[];
        readonly ids: readonly number[];
      }[];
    };
    const codec = await loadPromptCodec(models.smollm2);
    for (const { text, ids, decodedWithoutSpecial } of texts) {
      expect(codec.encode(text), JSON.stringify(text)).toEqual(ids);
      expect(codec.decode(ids, { skipSpecialTokens: true })).toBe(decodedWithoutSpecial);
    }
    for (const { messages, ids } of chats) expect(codec.encode(messages)).toEqual(ids);
  });
});
