import { mkdir, rm, symlink } from "node:fs/promises";
import { dirname, join, relative } from "node:path";
import type { Assignment } from "./ownership.js";

/**
 * Where the logs of a node lie, below its state directory:
 *
 *     logs/processes/<process id>.out, .err        hosts: stdout and stderr apart
 *     logs/processes/<process id>.log              drivers: both in one file, in the order they were written
 *     logs/jobs/<job id>/driver-<attempt>.log      → links into processes/
 *     logs/jobs/<job id>/<name>-<actor hex>-<incarnation>.out, .err
 *
 * A name holds the actor's own name ("trainer-0"), which is where a rank is. Files are append-only and stay after death.
 */
export interface LogFiles {
  readonly stdout: string;
  readonly stderr: string;
}

/** Log files of a process; a driver's two are one. */
export function processLogs(logDir: string, kind: "host" | "driver", processId: string): LogFiles {
  const base = join(logDir, "processes", processId);
  return kind === "driver" ? { stdout: `${base}.log`, stderr: `${base}.log` } : { stdout: `${base}.out`, stderr: `${base}.err` };
}

/** The readable names of a process's logs, without their endings. */
export function assignmentLogBase(logDir: string, assignment: Assignment): string {
  const jobDir = join(logDir, "jobs", assignment.jobId);
  if (assignment.kind === "job") return join(jobDir, `driver-${assignment.attempt}`);
  const hex = assignment.actorId.slice(assignment.actorId.indexOf("_") + 1);
  const name = assignment.name.replace(/[^A-Za-z0-9._-]+/g, "_").slice(0, 80) || "actor";
  return join(jobDir, `${name}-${hex}-${assignment.incarnation}`);
}

/** Links a process's logs under its job and returns the link to its stderr (for a driver: to its one log). Repeating it changes nothing. */
export async function linkLogs(logDir: string, assignment: Assignment, logs: LogFiles): Promise<string> {
  const base = assignmentLogBase(logDir, assignment);
  await mkdir(dirname(base), { recursive: true, mode: 0o700 });
  const links =
    assignment.kind === "job"
      ? [[logs.stdout, `${base}.log`] as const]
      : [[logs.stdout, `${base}.out`] as const, [logs.stderr, `${base}.err`] as const];
  for (const [file, link] of links) {
    await rm(link, { force: true });
    await symlink(relative(dirname(link), file), link);
  }
  return assignment.kind === "job" ? `${base}.log` : `${base}.err`;
}
