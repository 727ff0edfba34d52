import { type ErrorCode, SlimeError } from "@slime/core";
import type { JobView, StatusView } from "./shapes.js";

/** One request's time, unless it waits for something by its nature. */
const timeoutMs = 15_000;
const uploadTimeoutMs = 300_000;
/** A stop waits this long for the job's processes to be gone. */
const stopWaitMs = 60_000;

export interface Submission {
  readonly entrypoint: string;
  readonly submission_id?: string;
  readonly runtime_env?: Readonly<Record<string, unknown>>;
  readonly metadata?: Readonly<Record<string, string>>;
  readonly entrypoint_num_cpus?: number;
  readonly entrypoint_num_gpus?: number;
  readonly attempts_max?: number;
}

/** The head's management API. Failures are the head's own, with their codes; a head that does not answer is `head.unavailable`. */
export interface HeadClient {
  readonly url: string;
  readonly status: () => Promise<StatusView>;
  readonly submit: (job: Submission) => Promise<{ readonly job_id: string; readonly submission_id: string }>;
  readonly jobs: () => Promise<readonly JobView[]>;
  readonly job: (id: string) => Promise<JobView>;
  readonly stop: (id: string, graceMs: number | null) => Promise<boolean>;
  readonly hasPackage: (name: string) => Promise<boolean>;
  readonly putPackage: (name: string, bytes: Buffer) => Promise<void>;
  /** The log from a byte on, as server-sent events. */
  readonly openLog: (id: string, offset: number, signal: AbortSignal) => Promise<ReadableStream<Uint8Array>>;
}

/** A client of the head at `url` (`http://host:port`, without a slash at the end). It keeps no connection, so it needs no closing. */
export function headClient(url: string): HeadClient {
  const request = async (
    method: string,
    path: string,
    options: { readonly body?: string | Buffer; readonly type?: string; readonly timeoutMs?: number; readonly signal?: AbortSignal } = {},
  ): Promise<Response> => {
    const limit = options.timeoutMs ?? timeoutMs;
    let response: Response;
    try {
      response = await fetch(url + path, {
        method,
        signal: options.signal ?? AbortSignal.timeout(limit),
        ...(options.body === undefined
          ? {}
          : { body: options.body as string, headers: { "content-type": options.type ?? "application/json" } }),
      });
    } catch (error) {
      if (options.signal?.aborted === true) throw options.signal.reason;
      throw new SlimeError("head.unavailable", noHead(url, error), { address: url }, { cause: error });
    }
    if (!response.ok) throw await failureOf(response, url);
    return response;
  };
  const json = async <T>(method: string, path: string, options?: Parameters<typeof request>[2]): Promise<T> =>
    (await (await request(method, path, options)).json()) as T;
  const at = (id: string) => `/api/jobs/${encodeURIComponent(id)}`;
  return {
    url,
    status: () => json("GET", "/api/status"),
    submit: (job) => json("POST", "/api/jobs/", { body: JSON.stringify(job) }),
    jobs: () => json("GET", "/api/jobs/"),
    job: (id) => json("GET", at(id)),
    async stop(id, graceMs) {
      const wait = stopWaitMs + (graceMs ?? 0);
      const { stopped } = await json<{ readonly stopped: boolean }>(
        "POST",
        `${at(id)}/stop?wait_ms=${wait}${graceMs === null ? "" : `&grace_ms=${graceMs}`}`,
        { timeoutMs: wait + timeoutMs },
      );
      return stopped;
    },
    async hasPackage(name) {
      try {
        await request("GET", `/api/packages/slime/${name}`);
        return true;
      } catch (error) {
        if (SlimeError.is(error, "not_found")) return false;
        throw error;
      }
    },
    async putPackage(name, bytes) {
      await request("PUT", `/api/packages/slime/${name}`, { body: bytes, type: "application/octet-stream", timeoutMs: uploadTimeoutMs });
    },
    async openLog(id, offset, signal) {
      const { body } = await request("GET", `${at(id)}/logs/follow?offset=${offset}`, { signal });
      if (body === null) throw new SlimeError("wire.broken", "the head sent a log without a body", { peer: url, reason: "no body" });
      return body;
    },
  };
}

/** Nobody listens, nobody answers in time, or somebody who does not speak HTTP: each needs another fix. */
function noHead(url: string, error: unknown): string {
  if (error instanceof Error && error.name === "TimeoutError")
    return `the head at ${url} did not answer in time: it may be stopped or very busy`;
  if (speaksNoHttp(error))
    return `what listens at ${url} does not speak HTTP: that is the control plane's port, for workers (6380 by default); name the head's http address (port 8265 by default; \`slime-head status\` prints it) with --address`;
  return `no head answers at ${url}: start one with \`slime-head start\`, or name its http address with --address`;
}

/** True when the HTTP client, behind what `fetch` wraps it in, could make nothing of what it read, or was hung up on. */
function speaksNoHttp(error: unknown): boolean {
  for (let at = error; at instanceof Error; at = at.cause)
    if (at.name === "HTTPParserError" || ("code" in at && at.code === "UND_ERR_SOCKET")) return true;
  return false;
}

/** The failure that the head sent; anything else at this address is not a head. */
async function failureOf(response: Response, url: string): Promise<SlimeError> {
  const text = await response.text();
  try {
    const { error } = JSON.parse(text) as {
      readonly error?: { readonly code?: unknown; readonly message?: unknown; readonly details?: unknown };
    };
    if (typeof error?.code === "string" && typeof error.message === "string") {
      const prefix = `[${error.code}] `;
      return new SlimeError(
        error.code as ErrorCode,
        error.message.startsWith(prefix) ? error.message.slice(prefix.length) : error.message,
        (error.details ?? {}) as never,
      );
    }
  } catch {
    // not JSON: not a head
  }
  return new SlimeError(
    "head.unavailable",
    `${url} answered ${response.status}, not as a head does: name the head's http address (port 8265 by default) with --address`,
    { address: url },
  );
}
