import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join, resolve } from "node:path";
import { SlimeError } from "@slime/core";
import { checkHeadAddress, refuseBeyondLoopback } from "@slime/node";
import { z } from "zod";

const amount = z.coerce.number().nonnegative();
const count = z.coerce.number().int().nonnegative();

/** Everything `slime-worker join` takes; each row names its flag's meaning once. */
export const JoinOptions = z.strictObject({
  address: z.string(),
  numGpus: count.optional().describe("virtual GPUs to declare; without it the real ones are used"),
  numCpus: amount.optional().describe("processors to give; default: what this process may use"),
  memory: z.string().optional().describe("memory to give: MiB, or with a unit (8GiB)"),
  resources: z.string().optional().describe("further resources as JSON, for example '{\"licence\": 2}'"),
  labels: z.string().optional().describe("labels that placement can ask for: zone=a,disk=ssd"),
  stateDir: z.string().optional().describe("this node's state and logs; default: below SLIME_HOME, found again after a crash"),
  name: z.string().max(80).default("").describe("shown instead of the host name"),
  nodeIp: z.string().default("127.0.0.1").describe("address to advertise"),
  poolSize: count.max(64).default(2).describe("hosts kept ready for actors"),
  wait: amount.default(15).describe("seconds to wait for a head that does not answer yet"),
  grace: amount.default(10).describe("seconds that actors and drivers get to end at a stop"),
  log: z.enum(["text", "json"]).optional().describe("text for people, json for machines; default: text on a terminal"),
});
export type JoinOptions = Readonly<z.output<typeof JoinOptions>>;

/** A join, resolved: nothing below reads flags or the environment again. */
export interface ResolvedJoin {
  readonly options: JoinOptions;
  readonly nodesDir: string;
  readonly memoryMib: number | undefined;
  readonly custom: Readonly<Record<string, number>>;
  readonly labels: Readonly<Record<string, string>>;
}

type Env = Readonly<Record<string, string | undefined>>;

/** Where nodes of this machine keep their state. */
export function nodesDirOf(env: Env): string {
  return resolve(homeOf(env), "nodes");
}

function homeOf(env: Env): string {
  return env["SLIME_HOME"] || join(homedir(), ".slime");
}

/** Where the head of this machine listens, as it wrote down itself; it may have died since. */
function headOfHome(env: Env): string | undefined {
  try {
    const { grpcAddress } = JSON.parse(readFileSync(resolve(homeOf(env), "head", "head.json"), "utf8")) as {
      readonly grpcAddress?: unknown;
    };
    return typeof grpcAddress === "string" ? grpcAddress : undefined;
  } catch {
    return undefined;
  }
}

/** flag > environment > the head of this machine > default. @throws SlimeError `config.invalid` with all issues at once, `usage`, `address.refused`. */
export function resolveJoin(flags: Readonly<Record<string, unknown>>, env: Env): ResolvedJoin {
  const fromEnv = { address: env["SLIME_HEAD_ADDRESS"] || headOfHome(env), nodeIp: env["SLIME_NODE_IP"], log: env["SLIME_LOG"] };
  const known = Object.fromEntries(Object.entries({ ...dropUndefined(fromEnv), ...dropUndefined(flags) }));
  if (known["address"] === undefined) {
    const issue = "no head is known here: start one with `slime-head start`, or give its address: `slime-worker join 127.0.0.1:6380`";
    throw new SlimeError("usage", issue, { issues: [issue] });
  }
  const parsed = JoinOptions.safeParse(known);
  const issues = parsed.success ? [] : parsed.error.issues.map((issue) => `${flagName(issue.path)}: ${issue.message}`);
  const options = parsed.success ? parsed.data : null;
  // Parsed from what was given, so that one wrong flag does not hide another.
  const given = <T>(name: keyof JoinOptions, parse: (text: string) => T) =>
    attempt(issues, () => (typeof known[name] === "string" ? parse(known[name]) : undefined));
  const memoryMib = given("memory", parseMemory);
  const custom = given("resources", parseResources);
  const labels = given("labels", parseLabels);
  if (options === null || issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  checkHeadAddress(options.address);
  refuseBeyondLoopback(options.nodeIp, "--node-ip");
  return Object.freeze({ options, nodesDir: nodesDirOf(env), memoryMib, custom: custom ?? {}, labels: labels ?? {} });
}

function flagName(path: readonly PropertyKey[]): string {
  const name = path.map(String).join(".");
  return name === "address" ? "ADDRESS" : `--${name.replace(/[A-Z]/g, (letter) => `-${letter.toLowerCase()}`)}`;
}

function dropUndefined(record: Readonly<Record<string, unknown>>): Record<string, unknown> {
  return Object.fromEntries(Object.entries(record).filter(([, value]) => value !== undefined && value !== ""));
}

function attempt<T>(issues: string[], parse: () => T): T | undefined {
  try {
    return parse();
  } catch (error) {
    issues.push(error instanceof Error ? error.message : String(error));
    return undefined;
  }
}

const mibPerUnit: Readonly<Record<string, number>> = { "": 1, k: 1 / 1024, m: 1, g: 1024, t: 1024 ** 2 };

/** "8GiB", "512M" or plain MiB → MiB. */
export function parseMemory(text: string): number {
  const match = /^(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?$/i.exec(text.trim());
  const scale = mibPerUnit[(match?.[2] ?? "x").toLowerCase()];
  if (match === null || scale === undefined)
    throw new RangeError(`--memory: ${JSON.stringify(text)} is no amount; write 8192 (MiB) or 8GiB`);
  return Math.floor(Number(match[1]) * scale);
}

/** A JSON object of amounts. */
export function parseResources(text: string): Record<string, number> {
  const issue = (what: string) => new RangeError(`--resources: ${what}; write for example '{"licence": 2}'`);
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw issue(`${JSON.stringify(text)} is not JSON`);
  }
  if (typeof value !== "object" || value === null || Array.isArray(value)) throw issue("it is not an object");
  const amounts: Record<string, number> = {};
  for (const [name, number] of Object.entries(value)) {
    if (typeof number !== "number" || !(number >= 0)) throw issue(`${name} is not a number ≥ 0`);
    amounts[name] = number;
  }
  return amounts;
}

/** "zone=a,disk=ssd". */
export function parseLabels(text: string): Record<string, string> {
  return Object.fromEntries(
    text.split(",").map((pair) => {
      const at = pair.indexOf("=");
      if (at < 1) throw new RangeError(`--labels: ${JSON.stringify(pair)} is not key=value; write zone=a,disk=ssd`);
      return [pair.slice(0, at).trim(), pair.slice(at + 1).trim()];
    }),
  );
}
