import { systemClock } from "@slime/core";
import { typedCommand } from "@slime/platform";
import type { Command } from "commander";
import { headUrl } from "../client/head-address.js";
import { headClient } from "../client/head-client.js";
import { type ActorView, jobIsOver, type NodeView, type StatusView } from "../client/shapes.js";
import { shorten, textTable } from "../client/text-table.js";
import { jobLines } from "./job.js";

/** Dead actors and ended jobs shown at most; `--json` has more. */
const endedShownMax = 5;
/** Of what an actor does or why it died; `slime status --json` and `slime logs` have all of it. */
const whyCharsMax = 160;

/** Adds `slime status`. */
export function register(program: Command): void {
  program
    .command("status")
    .description("the cluster: nodes, what is used, actors and what they wait for, placement groups, jobs")
    .option("--address <address>", "http address of the head (SLIME_ADDRESS; default: the head of this machine)")
    .option("--json", "for machines")
    .addHelpText("after", "\nExamples:\n  slime status\n  slime status --json | jq '.actors[] | select(.state != \"ALIVE\") | .waiting'")
    .action(async (flags: { readonly address?: string; readonly json?: true }) => {
      const status = await headClient(headUrl(flags.address)).status();
      process.stdout.write(
        flags.json === true ? `${JSON.stringify(status, null, 2)}\n` : `${statusLines(status, systemClock.wallMs()).join("\n")}\n`,
      );
    });
}

/** The whole page. */
export function statusLines(status: StatusView, nowMs: number): readonly string[] {
  const lines = [
    `${status.cluster_id}  head ${status.address}  http://${status.http_address}${status.epoch > 1 ? `  life ${status.epoch}` : ""}`,
  ];
  if (status.read_only !== null) lines.push(`THE HEAD ONLY READS: ${status.read_only}`);
  const left = status.nodes.filter((node) => node.state === "LEFT").length;
  const alive = status.nodes.filter((node) => node.state === "ALIVE").length;
  lines.push("", `Nodes (${alive} alive${left > 0 ? `; ${left} left in order: --json` : ""})`, ...indent(nodeLines(status.nodes)));
  const jobName = namesOfJobs(status);
  const gpus = gpuLines(status, jobName);
  if (gpus.length > 0) lines.push("", "GPUs", ...indent(gpus));
  const actors = shownActors(status);
  lines.push("", ...section("Actors", actorLines(actors, jobName), hiddenOf(status.actors.length - actors.length, "dead")));
  lines.push("", ...section("Placement groups", groupLines(status, jobName)));
  const ended = status.jobs.filter(jobIsOver);
  const shown = status.jobs.filter((job) => !jobIsOver(job) || ended.indexOf(job) >= ended.length - endedShownMax);
  lines.push(
    "",
    ...section("Jobs", shown.length === 0 ? [] : jobLines(shown, nowMs), hiddenOf(status.jobs.length - shown.length, "ended")),
  );
  if (status.actors.length > 0) lines.push("", `what an actor printed: ${typedCommand("slime", process.env)} logs ACTOR`);
  return lines;
}

function nodeLines(nodes: readonly NodeView[]): readonly string[] {
  const present = nodes.filter((node) => node.state === "ALIVE" || node.state === "SUSPECT");
  const gone = nodes.filter((node) => node.state === "LOST").slice(-endedShownMax);
  if (present.length + gone.length === 0) return [`none has joined: ${typedCommand("slime-worker", process.env)} join ADDRESS`];
  return textTable(
    ["node", "state", "machine", "used"],
    [...present, ...gone].map((node) => [
      node.node_id,
      node.reason === null ? node.state : `${node.state} (${node.reason})`,
      `${node.hostname} ${node.address}`,
      present.includes(node) ? useOf(node) : "",
    ]),
  );
}

/** `CPU 3/8, GPU 1/2, memory 0/24 GiB`. */
function useOf(node: NodeView): string {
  return Object.entries(node.resources)
    .map(([name, total]) => {
      const used = round(total - (node.available[name] ?? 0));
      return name === "memory"
        ? `memory ${(used / 1_024).toFixed(1)}/${(total / 1_024).toFixed(1)} GiB`
        : `${name} ${used}/${round(total)}`;
    })
    .join(", ");
}

function gpuLines(status: StatusView, jobName: JobName): readonly string[] {
  const rows = status.nodes
    .filter((node) => node.state === "ALIVE" || node.state === "SUSPECT")
    .flatMap((node) =>
      node.gpus.map((gpu) => [
        node.node_id,
        String(gpu.index),
        gpu.virtual ? "virtual" : gpu.name,
        `${Math.round(gpu.held * 100)} %`,
        gpu.utilisation === null ? "–" : `${Math.round(gpu.utilisation * 100)} %`,
        gpu.held_by.map((holder) => holderText(holder, status, jobName)).join(", "),
      ]),
    );
  return rows.length === 0 ? [] : textTable(["node", "gpu", "kind", "held", "busy", "by"], rows);
}

type JobName = (jobId: string) => string;

/** Submission ids are what people gave, and type; an interactive job has its job id alone. */
function namesOfJobs(status: StatusView): JobName {
  const names = new Map(status.jobs.map((job) => [job.job_id, job.submission_id ?? job.job_id]));
  return (jobId) => names.get(jobId) ?? jobId;
}

/** `placement group run (pg_…) of sort-1`: the head names the holder with its id, the job follows from that. */
function holderText(holder: string, status: StatusView, jobName: JobName): string {
  const id = /\(((?:pg|actor)_[0-9a-f]+)\)$/.exec(holder)?.[1];
  const owner =
    status.placement_groups.find((group) => group.placement_group_id === id)?.job_id ??
    status.actors.find((actor) => actor.actor_id === id)?.job_id;
  return owner === undefined ? holder : `${holder} of ${jobName(owner)}`;
}

const isDead = (actor: ActorView): boolean => actor.state === "DEAD";

/** Actors that live, and of the dead the last few that did not simply end with their job. */
function shownActors({ actors }: StatusView): readonly ActorView[] {
  const wentWrong = (actor: ActorView) => actor.death !== null && !["KILLED", "JOB_ENDED"].includes(actor.death.reason);
  return [
    ...actors.filter((actor) => !isDead(actor)),
    ...actors.filter((actor) => isDead(actor) && wentWrong(actor)).slice(-endedShownMax),
  ];
}

/** `; 7 more dead: --json`. */
const hiddenOf = (count: number, word: string): string => (count === 0 ? "" : `; ${count} more ${word}: --json`);

function actorLines(actors: readonly ActorView[], jobName: JobName): readonly string[] {
  if (actors.length === 0) return [];
  return textTable(
    ["actor", "class", "job", "state", "node", "pid", "gpu", "does or waits for"],
    actors.map((actor) => [
      actor.name || actor.actor_id,
      actor.class_name,
      jobName(actor.job_id),
      actor.restarts > 0 ? `${actor.state} (restart ${actor.restarts})` : actor.state,
      actor.node_id ?? "–",
      String(actor.pid ?? "–"),
      actor.gpu_indices.join(",") || "–",
      shorten(whyOf(actor), whyCharsMax),
    ]),
  );
}

function whyOf(actor: ActorView): string {
  if (actor.state === "DEAD") return actor.death === null ? "" : `${actor.death.reason}: ${actor.death.message}`;
  if (actor.waiting.length > 0) return actor.waiting.join("; ");
  if (actor.phase === null) return "";
  return actor.waiting_for === null ? actor.phase : `${actor.phase}, waits for ${actor.waiting_for}`;
}

function groupLines(status: StatusView, jobName: JobName): readonly string[] {
  const live = status.placement_groups.filter((group) => group.state !== "REMOVED");
  if (live.length === 0) return [];
  return textTable(
    ["group", "job", "state", "strategy", "bundles", "where or why not"],
    live.map((group) => [
      group.name || group.placement_group_id,
      jobName(group.job_id),
      group.state,
      group.strategy,
      String(group.bundles.length),
      group.waiting.length > 0
        ? group.waiting.join("; ")
        : group.bundles
            .map(
              (bundle) =>
                `${(bundle.node_id ?? "").slice(0, 11)}${bundle.gpu_indices.length > 0 ? `:${bundle.gpu_indices.join("+")}` : ""}`,
            )
            .join(" "),
    ]),
  );
}

function section(title: string, lines: readonly string[], more = ""): readonly string[] {
  return lines.length === 0 ? [`${title}: none${more}`] : [`${title} (${lines.length - 1}${more})`, ...indent(lines)];
}

const indent = (lines: readonly string[]): readonly string[] => lines.map((line) => `  ${line}`);
const round = (value: number): number => Math.round(value * 10_000) / 10_000;
