import type { LogFields, Logger } from "@slime/core";

/** Events a person at a terminal wants to see, in words; others are left to the JSON log. */
const sentences: Readonly<Record<string, (fields: LogFields) => string>> = {
  "head.awaited": (f) => `waiting for a head at ${f["address"]} …`,
  "node.started": (f) =>
    `${f["nodeId"]} gives ${f["gives"]}${Number(f["adopted"]) > 0 ? `; took over ${f["adopted"]} running processes` : ""}\n  state and logs: ${f["stateDir"]}`,
  "node.no_gpus": () => "no GPU was found here: a run that wants some will not fit; --num-gpus N declares virtual ones",
  "node.joined": (f) => `joined ${f["clusterId"]} at ${f["head"]} (head epoch ${f["epoch"]}); Ctrl-C leaves`,
  "node.cluster_changed": (f) => `the head leads another cluster now (${f["is"]}): what ran here for ${f["was"]} is ended`,
  "head.lost": (f) => `lost the head at ${f["address"]} (${f["reason"]}): what runs here goes on, trying again`,
  "process.start_failed": (f) => `could not start a process: ${f["error"] instanceof Error ? f["error"].message : f["error"]}`,
  "daemon.restarted": (f) =>
    `the daemon ended (${f["signal"] ?? `exit code ${f["exitCode"]}`}): starting it again, time ${f["restarts"]} in ten minutes`,
  "node.stopping": (f) => `stopping (${f["reason"]}) …`,
  "node.stopped": () => "stopped; nothing is left running",
};

/** What ends the daemon is written for people by whoever runs it (`runDaemon`): once is enough. */
const toldElsewhere: ReadonlySet<string> = new Set(["daemon.failed", "daemon.crashed"]);

/** One line an event, for terminals. */
export function textLog(write: (line: string) => void, bound: LogFields = {}): Logger {
  const say =
    (always: boolean) =>
    (event: string, fields: LogFields = {}) => {
      if (toldElsewhere.has(event)) return;
      const all = { ...bound, ...fields };
      const sentence = sentences[event];
      if (sentence !== undefined) write(`slime-worker: ${sentence(all)}\n`);
      else if (always)
        write(
          `slime-worker: ${event} ${JSON.stringify(all, (_key, value: unknown) => (value instanceof Error ? value.message : value))}\n`,
        );
    };
  return { debug() {}, info: say(false), warn: say(true), error: say(true), child: (fields) => textLog(write, { ...bound, ...fields }) };
}
