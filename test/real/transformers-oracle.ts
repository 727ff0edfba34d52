import { spawn } from "node:child_process";
import { fileURLToPath } from "node:url";
import { realEnv } from "./real-env.js";

const script = fileURLToPath(new URL("./python/transformers_oracle.py", import.meta.url));
const answerMsMax = 120_000;

export interface OracleQuestions {
  readonly sequences: readonly (readonly number[])[];
  readonly chats: readonly (readonly { readonly role: string; readonly content: string }[])[];
  readonly texts: readonly string[];
}

export interface OracleAnswers {
  /** Of every token but the first, at temperature 1. */
  readonly log_probs: readonly (readonly number[])[];
  readonly chats: readonly { readonly text: string; readonly ids: readonly number[] }[];
  readonly texts: readonly { readonly ids: readonly number[]; readonly decoded: string }[];
}

/** Asks Hugging Face transformers of a checkpoint, in a process of its own. @throws with the end of its stderr. */
export async function askTransformers(model: string, questions: OracleQuestions): Promise<OracleAnswers> {
  const { python, env } = realEnv();
  const child = spawn(python, [script, model], { env: { ...process.env, ...env }, timeout: answerMsMax, stdio: ["pipe", "pipe", "pipe"] });
  let answer = "";
  let said = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    answer += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    said = (said + text).slice(-4_000);
  });
  child.stdin.end(JSON.stringify(questions));
  const status = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (status !== 0) throw new Error(`transformers ended with ${status}:\n${said}`);
  return JSON.parse(answer) as OracleAnswers;
}
