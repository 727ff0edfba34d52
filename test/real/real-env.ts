import { readFileSync } from "node:fs";
import { invariant } from "@slime/core";

/** What `npm run test:real` made, as slime-real.json says it. */
export interface RealEnv {
  /** The environment's interpreter: `python -m sglang.launch_server` runs there. */
  readonly python: string;
  /** What its processes need beside the usual environment. */
  readonly env: Readonly<Record<string, string>>;
  /** ServerArgs, snake_case, of a server without a GPU. */
  readonly args: Readonly<Record<string, string | number | boolean>>;
  /** Versions of SGLang and of sglang-router. */
  readonly sglang: string;
  readonly router: string;
  /** Hugging Face folders. */
  readonly models: { readonly tinyQwen3: string; readonly smollm2: string };
}

/** Reads the file that `SLIME_REAL_ENV` names. */
export function realEnv(): RealEnv {
  const path = process.env["SLIME_REAL_ENV"];
  invariant(path !== undefined, "SLIME_REAL_ENV names no slime-real.json: run these tests by npm run test:real");
  return JSON.parse(readFileSync(path, "utf8")) as RealEnv;
}
