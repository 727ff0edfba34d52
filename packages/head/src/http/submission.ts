import { createHash } from "node:crypto";
import { stat } from "node:fs/promises";
import { isAbsolute } from "node:path";
import { JobId, type Random, SlimeError } from "@slime/core";
import type { JobSpec } from "@slime/rpc/control";
import { gpuResource, resourcesFrom } from "@slime/scheduler";
import { z } from "zod";
import { headLimits } from "../limits.js";
import type { PackageStore } from "../packages/package-store.js";
import type { SubmittedJob } from "../state/inputs.js";

const text = (max: number) => z.string().max(max);
const amount = z.number().nonnegative().finite();
const environmentName = /^[A-Za-z_][A-Za-z0-9_]*$/;

/** Body of POST /api/jobs/: Ray's names, and `attempts_max`. What Ray's client sends as null counts as absent. */
const Submission = z.strictObject({
  entrypoint: text(headLimits.entrypointBytesMax).min(1),
  submission_id: z
    .string()
    .regex(/^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$/, "letters, digits and _ . - (at most 128)")
    .nullish(),
  job_id: z.string().nullish(),
  runtime_env: z.record(z.string(), z.unknown()).nullish(),
  metadata: z.record(text(1_024), text(65_536)).nullish(),
  entrypoint_num_cpus: amount.nullish(),
  entrypoint_num_gpus: amount.nullish(),
  entrypoint_memory: amount.nullish(),
  entrypoint_resources: z.record(z.string(), amount).nullish(),
  entrypoint_label_selector: z.record(z.string(), z.string()).nullish(),
  attempts_max: z.number().int().min(1).max(1_000).nullish(),
});

const RuntimeEnv = z.strictObject({
  env_vars: z.record(z.string().regex(environmentName, "no name of an environment variable"), text(131_072)).nullish(),
  /** `slime://<sha256>.zip` or `gcs://<name>.zip` as uploaded, or an absolute path on this machine, used in place. */
  working_dir: z.string().min(1).nullish(),
});

/** Submission ids have no characters that look alike. */
const idAlphabet = "23456789ABCDEFGHJKMNPQRSTUVWXYZabcdefghijkmnpqrstuvwxyz";

/** A checked body as the job to submit. Unpacks its working directory. @throws SlimeError `config.invalid` with all problems, `not_found`, `unsupported`. */
export async function readSubmission(
  body: unknown,
  context: {
    readonly random: Random;
    readonly packages: PackageStore;
    readonly httpAddress: string;
    readonly known: (submissionId: string) => { readonly jobId: string; readonly cwd: string } | null;
  },
): Promise<SubmittedJob> {
  const parsed = Submission.safeParse(body);
  const runtimeEnv = parsed.success ? RuntimeEnv.safeParse(publicKeys(parsed.data.runtime_env ?? {})) : null;
  const issues = [
    ...(parsed.success ? [] : issuesOf(parsed.error, "")),
    ...(runtimeEnv === null || runtimeEnv.success ? [] : issuesOf(runtimeEnv.error, "runtime_env.")),
  ];
  if (
    parsed.success &&
    parsed.data.entrypoint_label_selector !== null &&
    Object.keys(parsed.data.entrypoint_label_selector ?? {}).length > 0
  )
    issues.push("entrypoint_label_selector: drivers are not placed by label; leave it out");
  if (parsed.success && Object.keys(parsed.data.metadata ?? {}).length > headLimits.metadataEntriesMax)
    issues.push(`metadata: at most ${headLimits.metadataEntriesMax} entries`);
  if (!parsed.success || runtimeEnv === null || !runtimeEnv.success || issues.length > 0)
    throw new SlimeError("config.invalid", issues.join("; "), { issues });
  const { data } = parsed;
  const submissionId = data.submission_id ?? newSubmissionId(context.random);
  const known = context.known(submissionId);
  const jobId = known?.jobId ?? JobId.create(context.random);
  const env = { ...(runtimeEnv.data.env_vars ?? {}) };
  const resources = resourcesFrom({
    CPU: data.entrypoint_num_cpus ?? 0,
    [gpuResource]: data.entrypoint_num_gpus ?? 0,
    memory: (data.entrypoint_memory ?? 0) / 1_048_576,
    ...data.entrypoint_resources,
  });
  const spec: JobSpec = {
    jobId,
    submissionId,
    entrypoint: data.entrypoint,
    env: { PYTHONUNBUFFERED: "1", SLIME_ADDRESS: context.httpAddress, ...env },
    cwd: known?.cwd ?? (await workingDirectory(runtimeEnv.data.working_dir ?? null, jobId, context.packages)),
    metadata: { ...data.metadata },
    resources: { ...resources },
    attemptsMax: data.attempts_max ?? 1,
  };
  const asked = {
    entrypoint: data.entrypoint,
    runtime_env: data.runtime_env ?? {},
    metadata: data.metadata ?? {},
    resources,
    attempts_max: spec.attemptsMax,
  };
  return { spec, requestHash: createHash("sha256").update(canonical(asked)).digest("hex"), runtimeEnv: data.runtime_env ?? {} };
}

async function workingDirectory(uri: string | null, jobId: string, packages: PackageStore): Promise<string> {
  if (uri === null) return packages.emptyDirectory(jobId);
  if (uri.includes("://")) return packages.unpack(uri, jobId);
  if (!isAbsolute(uri))
    throw new SlimeError("config.invalid", `runtime_env.working_dir: ${uri} is neither absolute nor the name of an uploaded package`, {
      issues: ["runtime_env.working_dir"],
    });
  const found = await stat(uri).catch(() => null);
  if (found?.isDirectory() !== true)
    throw new SlimeError("file.missing", `the working directory ${uri} is no directory on the head's machine`, {
      path: uri,
      wanted: "a directory",
    });
  return uri;
}

/** Ray's client adds keys of its own that begin with an underscore. */
function publicKeys(runtimeEnv: Readonly<Record<string, unknown>>): Readonly<Record<string, unknown>> {
  return Object.fromEntries(Object.entries(runtimeEnv).filter(([key]) => !key.startsWith("_")));
}

function issuesOf(error: z.ZodError, prefix: string): readonly string[] {
  return error.issues.map((issue) => `${prefix}${issue.path.join(".") || (prefix === "" ? "body" : "")}: ${issue.message}`);
}

function newSubmissionId(random: Random): string {
  return `submit_${[...random.bytes(16)].map((byte) => idAlphabet[byte % idAlphabet.length]).join("")}`;
}

/** JSON with sorted keys: equal requests have equal text. */
function canonical(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value) ?? "null";
  const entries = Object.entries(value)
    .filter(([, item]) => item !== undefined)
    .sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([key, item]) => `${JSON.stringify(key)}:${canonical(item)}`).join(",")}}`;
}
