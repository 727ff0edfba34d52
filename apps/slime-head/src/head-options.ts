import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { SlimeError } from "@slime/core";
import { z } from "zod";

type Env = Readonly<Record<string, string | undefined>>;

const port = z.coerce.number().int("must be a whole number").min(0, "must be 0 to 65535").max(65_535, "must be 0 to 65535");

/** One row a flag: name, default, help. */
export const HeadOptions = z.strictObject({
  port: port.default(6380).describe("port of the control plane: daemons and drivers; 0 takes any free one"),
  httpPort: port.default(8265).describe("port of the management API: jobs, state, /metrics; 0 takes any free one"),
  host: z.string().default("127.0.0.1").describe("address to bind; loopback only"),
  nodeIp: z.string().default("127.0.0.1").describe("address to advertise; loopback only"),
  stateDir: z.string().optional().describe("durable state; default $SLIME_HOME/head"),
  grace: z.coerce.number().min(0).max(3_600).default(10).describe("seconds that jobs and actors get to end at a stop"),
  log: z.enum(["text", "json"]).optional().describe("default: text on a terminal"),
});
export type HeadOptions = Readonly<z.output<typeof HeadOptions>>;

export interface ResolvedHead {
  readonly options: HeadOptions;
  readonly stateDirectory: string;
}

/** Where the head of this machine keeps its state. */
export function stateDirectoryOf(flag: string | undefined, env: Env): string {
  return resolve(flag ?? join(env["SLIME_HOME"] || join(homedir(), ".slime"), "head"));
}

/** flag > environment > default. @throws SlimeError `config.invalid`, all issues at once. */
export function resolveHead(flags: Readonly<Record<string, unknown>>, env: Env): ResolvedHead {
  const fromEnv = { nodeIp: env["SLIME_NODE_IP"], log: env["SLIME_LOG"] };
  const given = Object.fromEntries(
    [...Object.entries(fromEnv), ...Object.entries(flags)].filter(([, value]) => value !== undefined && value !== ""),
  );
  const parsed = HeadOptions.safeParse(given);
  if (!parsed.success) {
    const issues = parsed.error.issues.map(
      (issue) => `--${issue.path.join(".").replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}: ${issue.message}`,
    );
    throw new SlimeError("config.invalid", issues.join("; "), { issues });
  }
  return { options: parsed.data, stateDirectory: stateDirectoryOf(parsed.data.stateDir, env) };
}
