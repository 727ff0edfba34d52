import { readdir, readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { SlimeError } from "@slime/core";
import { assignmentLogBase } from "@slime/platform";
import type { Command } from "commander";
import { headUrl } from "../client/head-address.js";
import { headClient } from "../client/head-client.js";
import type { ActorView, StatusView } from "../client/shapes.js";

/** Lines of each file that are shown when nobody asks for another number. */
const linesDefault = 40;

interface LogsFlags {
  readonly address?: string;
  readonly lines: string;
  readonly life?: string;
}

/** Adds `slime logs`. */
export function register(program: Command): void {
  program
    .command("logs")
    .description("what an actor printed: its stdout and stderr (a job's own log: slime job logs)")
    .argument("<actor>", "name or id, or the beginning of an id; the newest of that name")
    .option("--lines <n>", "last lines of each file; all: everything", String(linesDefault))
    .option("--life <n>", "of an actor that was restarted: which life (default: the last)")
    .option("--address <address>", "http address of the head (SLIME_ADDRESS; default: the head of this machine)")
    .addHelpText("after", "\nExamples:\n  slime logs engine-0\n  slime logs trainer-0 --lines all --life 1")
    .action(async (wanted: string, flags: LogsFlags) => {
      const status = await headClient(headUrl(flags.address)).status();
      const actor = findActor(status, wanted);
      const files = await logFiles(status, actor, flags.life === undefined ? null : wholeNumber("--life", flags.life));
      const lines = flags.lines === "all" ? Number.POSITIVE_INFINITY : wholeNumber("--lines", flags.lines);
      for (const path of files) {
        const text = await readFile(path, "utf8");
        process.stdout.write(`==> ${path}${text === "" ? " (empty)" : ""}\n${lastOf(text, lines)}`);
      }
      process.stderr.write(`slime: to follow: tail -f ${files.join(" ")}\n`);
    });
}

/** A living actor before a dead one, a newer one before an older. @throws `not_found` naming those there are. */
export function findActor(status: StatusView, wanted: string): ActorView {
  const matching = status.actors.filter(
    (actor) => actor.name === wanted || actor.actor_id === wanted || (wanted.length >= 4 && actor.actor_id.startsWith(wanted)),
  );
  const found = matching.findLast((actor) => actor.state !== "DEAD") ?? matching.at(-1);
  if (found !== undefined) return found;
  const names = [...new Set(status.actors.map((actor) => actor.name || actor.actor_id))].slice(-8);
  throw new SlimeError("not_found", `there is no actor ${wanted}${names.length > 0 ? `; there are: ${names.join(", ")}` : ""}`, {
    kind: "actor",
    id: wanted,
  });
}

/** stdout and stderr of one life, below the log directory of whichever node had it. @throws `not_found` */
async function logFiles(status: StatusView, actor: ActorView, life: number | null): Promise<readonly string[]> {
  for (const node of status.nodes) {
    const { job_id: jobId, actor_id: actorId } = actor;
    const base = (incarnation: number) =>
      assignmentLogBase(node.log_dir, { kind: "actor", jobId, actorId, incarnation, name: actor.name || actor.class_name });
    // `<name>-<actor>-<life>`, less the life: whatever lives there were have their files here.
    const beginning = base(0).slice(0, -1);
    const names = await readdir(dirname(beginning)).catch(() => []);
    const lives = names.flatMap((name) => {
      const path = join(dirname(beginning), name);
      const match = /^(\d+)\.out$/.exec(path.startsWith(beginning) ? path.slice(beginning.length) : "");
      return match === null ? [] : [Number(match[1])];
    });
    const chosen = life ?? Math.max(...lives);
    if (lives.includes(chosen)) return [`${base(chosen)}.out`, `${base(chosen)}.err`];
  }
  const which = life === null ? "" : ` of life ${life}`;
  throw new SlimeError("not_found", `no output${which} of ${actor.name || actor.actor_id} on this machine: it never ran here`, {
    kind: "log",
    id: actor.actor_id,
  });
}

function lastOf(text: string, lines: number): string {
  const all = text.split("\n");
  return all.length - 1 <= lines ? text : `… ${all.length - 1 - lines} lines before (--lines all)\n${all.slice(-lines - 1).join("\n")}`;
}

function wholeNumber(flag: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  const issue = `${flag}: ${JSON.stringify(text)} is no whole number above 0`;
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}
