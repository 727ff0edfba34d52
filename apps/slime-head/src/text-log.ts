import type { LogFields, Logger } from "@slime/core";

/** Events a person at a terminal wants to see, in words; others are left to the JSON log and to `slime status`. */
const sentences: Readonly<Record<string, (fields: LogFields) => string>> = {
  "node.joined": (f) =>
    `${f["nodeId"]} joined (${f["hostname"]}, ${f["gpus"]} GPUs)${Number(f["adoptedActors"]) + Number(f["adoptedJobs"]) > 0 ? `, with ${f["adoptedActors"]} actors and ${f["adoptedJobs"]} drivers running` : ""}`,
  "node.suspect": (f) => `${f["nodeId"]} is silent: nothing new is placed there`,
  "node.lost": (f) =>
    `${f["nodeId"]} is lost after ${Math.round(Number(f["silentMs"]) / 1_000)} s of silence: what ran there is placed again`,
  "node.left": (f) => `${f["nodeId"]} left: ${f["reason"]}`,
  "node.eviction_held": (f) => `${f["silent"]} of ${f["nodes"]} nodes are silent at once: nobody is given up; look at the network`,
  "job.submitted": (f) => `job ${f["submissionId"]} submitted: ${f["entrypoint"]}`,
  "job.started": (f) =>
    `job ${f["submissionId"]} runs on ${f["nodeId"]}, pid ${f["pid"]}${Number(f["attempt"]) > 1 ? `, attempt ${f["attempt"]}` : ""}`,
  "job.ended": (f) => `job ${f["submissionId"] || f["jobId"]} ${f["status"]}: ${f["message"]}`,
  "actor.restarting": (f) => `actor ${f["name"] || f["className"]} restarts: ${f["message"]}`,
  "head.read_only": (f) => `the state cannot be written any more; the head only reads: ${f["reason"]}`,
  "head.stopping": (f) => `stopping (${f["reason"]}): jobs, actors, then workers …`,
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
      if (sentence !== undefined) write(`slime-head: ${sentence(all)}\n`);
      else if (always)
        write(`slime-head: ${event} ${JSON.stringify(all, (_key, value: unknown) => (value instanceof Error ? value.message : value))}\n`);
    };
  return { debug() {}, info: say(false), warn: say(true), error: say(true), child: (fields) => textLog(write, { ...bound, ...fields }) };
}
