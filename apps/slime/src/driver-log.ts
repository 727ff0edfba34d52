import { causeChain, type LogFields, type Logger } from "@slime/core";

type Say = (fields: LogFields) => string;

/** What a person who follows a run wants to read; other events are shown as name and fields. */
const sentences: Readonly<Record<string, Say>> = {
  "rollout.groups.failed": (f) =>
    `${f["groups"]} ${f["groups"] === 1 ? "prompt" : "prompts"} of rollout ${f["rolloutId"]} failed${f["retryable"] === true ? " and will be tried again" : ""}: ${f["reason"]} (${f["code"]}; ${examples(f["prompts"], Number(f["groups"]))})`,
  "rollout.chunk_failed": (f) => `a rollout worker did not finish its prompts (try ${f["attempt"]}): ${f["error"]}`,
  "engine.died": (f) => `${f["engine"]} died: ${f["reason"]}`,
  "engine.restarted": (f) => `${f["engineId"]} is restarted: ${f["reason"]}`,
  "router.died": (f) => `the router died: ${f["reason"]}`,
  "worker.died": (f) => `${f["worker"]} died: ${f["reason"]}`,
  "trainer.lost": (f) => `the trainer was lost during ${f["during"]}: ${f["reason"]}`,
  "run.failed": (f) => `the run failed during ${f["during"]}`,
  "push.fence_away": (f) => `a weight push waits for the router: ${f["reason"]}`,
  "push.failed": (f) => `pushing weight version ${f["version"]} failed: ${f["reason"]}`,
  "push.quarantined": (f) => `${f["engine"]} did not take weight version ${f["version"]} and gets no requests: ${f["reason"]}`,
  "eval.failed": (f) => `the evaluation after rollout ${f["rolloutId"]} failed (try ${f["tries"]}): ${f["reason"]}`,
  "checkpoint.invalid": (f) => `checkpoint ${f["name"]} is damaged, ${f["taken"]} is taken: ${f["reason"]}`,
  "journal.unreadable": (f) => `the journal was put aside as ${f["aside"]}: ${f["reason"]}; ${f["next"]}`,
  "control.lost": (f) => `lost the head at ${f["address"]} (${f["reason"]}): the run goes on, trying again`,
  "runtime.waiting": (f) => `waiting for ${f["for"]} for ${seconds(f["waitedMs"])}${rest(f, ["for", "waitedMs"])}`,
};

export interface DriverLogOptions {
  /** Takes one line without its break. */
  readonly write: (line: string) => void;
  /** True once the run was asked to stop: what breaks then is broken by that, and nobody is warned of it. */
  readonly isStopping?: () => boolean;
}

/** The driver's log for people: warnings and errors, a line each, equal ones in a row once; what goes well is told by the progress. */
export function driverLog(options: DriverLogOptions): Logger {
  return childLog({ ...options, write: onceInARow(options.write) }, {});
}

/** Says how often a line came when another one comes, and at every tenfold meanwhile. */
function onceInARow(write: (line: string) => void): (line: string) => void {
  let last = "";
  let times = 0;
  let told = 1;
  return (line) => {
    if (line === last) {
      if (++times < told * 10) return;
      told = times;
      return write(`  (${times} times by now)`);
    }
    if (times > told) write(`  (${times} times)`);
    last = line;
    [times, told] = [1, 1];
    write(line);
  };
}

function childLog(options: DriverLogOptions, bound: LogFields): Logger {
  const at =
    (level: "warning" | "error") =>
    (event: string, fields: LogFields = {}) => {
      if (level === "warning" && options.isStopping?.() === true) return;
      const all = { ...bound, ...fields };
      options.write(`${level}: ${sentences[event]?.(all) ?? `${event}${rest(all, [])}`}`.replaceAll("\n", "\n  "));
    };
  return {
    debug() {},
    info() {},
    warn: at("warning"),
    error: at("error"),
    child: (fields) => childLog(options, { ...bound, ...fields }),
  };
}

function examples(prompts: unknown, groups: number): string {
  const names = Array.isArray(prompts) ? prompts.map(String) : [];
  return `${names.length < groups ? "for example " : ""}${names.join(", ")}`;
}

/** ` name=value` for each field that a sentence does not use already. */
function rest(fields: LogFields, used: readonly string[]): string {
  return Object.entries(fields)
    .filter(([name]) => !used.includes(name))
    .map(
      ([name, value]) =>
        ` ${name}=${value instanceof Error ? causeChain(value).join(": ") : typeof value === "string" ? value : JSON.stringify(value)}`,
    )
    .join("");
}

const seconds = (ms: unknown): string => `${Math.round(Number(ms) / 1_000)} s`;
