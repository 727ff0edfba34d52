import { relative } from "node:path";
import { typedCommand } from "@slime/platform";
import type { RunConfig } from "@slime/rl-config";
import { decodeManifest, manifestName, type OpenedRun } from "@slime/training";
import { shellLine } from "./client/shell-words.js";

export interface ResumeInput {
  readonly run: Pick<OpenedRun, "paths" | "storage" | "settings">;
  readonly config: RunConfig;
  /** The run's flags as they were given. */
  readonly words: readonly string[];
  readonly env: Readonly<Record<string, string | undefined>>;
}

/** What a run that stops here will go on from, and the command that makes it. */
export async function resumeLines(input: ResumeInput): Promise<readonly string[]> {
  const newest = (await input.run.storage.checkpoints()).at(-1);
  if (newest === undefined) return ["  no checkpoint was written yet: it will start anew", `  with    ${resumeCommand(input)}`];
  const { trained } = decodeManifest(newest.manifest, `${newest.directory}/${manifestName}`);
  return [
    `  it will resume at rollout ${trained} of ${input.run.settings.loop.rollouts} from ${here(newest.directory)}; what came after is done again`,
    `  with    ${resumeCommand(input)}`,
  ];
}

/** The command that goes on with the same run directory; inside a job, as another job. */
function resumeCommand({ run, config, words, env }: ResumeInput): string {
  const slime = typedCommand("slime", env);
  const train = ["slime", config.mode === "sync" ? "train" : "train-async", ...words];
  const full = config.runDir === null ? [...train, "--run-dir", here(run.paths.root)] : train;
  return isInJob(env) ? `${slime} job submit -- ${shellLine(full)}` : [slime, shellLine(full.slice(1))].join(" ");
}

/** The cluster runs this driver. */
export function isInJob(env: Readonly<Record<string, string | undefined>>): boolean {
  return (env["SLIME_JOB_ID"] ?? "") !== "";
}

const here = (path: string): string => relative(process.cwd(), path) || ".";
