import type { EngineRole } from "@slime/backend";
import { type Clock, SlimeError, sleep } from "@slime/core";
import { HttpClient, type HttpReply, refusalText, replyJson } from "@slime/router";

/** One entry of an sglang_router's list. */
export interface ListedWorker {
  readonly id: string;
  readonly url: string;
  readonly isHealthy: boolean;
  /** What the router counts; some policies leave it at 0. */
  readonly load: number;
}

/** Between two looks at the list: a registration takes some 45 ms, a removal 25. */
const pollMsFirst = 20;
const pollMsMax = 500;
const callMsMax = 10_000;

/** The list of workers of an sglang_router (0.3.2), over its HTTP routes. Its changes are jobs: they are accepted first and done later. */
export class RouterWorkers {
  readonly url: string;
  readonly #http: HttpClient;
  readonly #clock: Clock;

  constructor(url: string, clock: Clock) {
    this.url = url;
    this.#clock = clock;
    this.#http = new HttpClient(url, clock);
  }

  async list(): Promise<readonly ListedWorker[]> {
    const { workers } = replyJson(this.url, await this.#call("GET", "/workers"));
    return (Array.isArray(workers) ? (workers as readonly Readonly<Record<string, unknown>>[]) : []).map((worker) => ({
      id: String(worker["id"]),
      url: String(worker["url"]),
      isHealthy: worker["is_healthy"] === true,
      load: typeof worker["load"] === "number" ? Math.max(0, worker["load"]) : 0,
    }));
  }

  async find(engine: string): Promise<ListedWorker | null> {
    return (await this.list()).find(({ url }) => url === engine) ?? null;
  }

  /** Adds an engine and waits until it is listed as healthy. @throws `engine.unavailable` when it is not within `waitMs`, with the job's last words. */
  async add(engine: string, role: EngineRole, waitMs: number): Promise<void> {
    const body = {
      url: engine,
      worker_type: role.kind,
      ...(role.kind === "prefill" ? { bootstrap_port: role.bootstrapPort } : {}),
    };
    const reply = replyJson(this.url, await this.#call("POST", "/workers", body));
    const id = String(reply["worker_id"]);
    const listed = async () => (await this.find(engine))?.isHealthy === true || (await this.#jobFailure(id, engine));
    if (await this.#until(listed, waitMs)) return;
    const reason = `sglang_router at ${this.url} did not list it as healthy within ${waitMs} ms`;
    throw new SlimeError("engine.unavailable", `${engine}: ${reason}; does it answer /health and /server_info?`, { engine, reason });
  }

  /** Removes an engine and waits until it is gone; requests it has go on. False: it was not listed. @throws `engine.unavailable` when it stays. */
  async remove(engine: string, waitMs: number): Promise<boolean> {
    const found = await this.find(engine);
    if (found === null) return false;
    await this.#call("DELETE", `/workers/${found.id}`, undefined, [404]);
    if (await this.#until(async () => (await this.find(engine)) === null, waitMs)) return true;
    const reason = `sglang_router at ${this.url} still lists it ${waitMs} ms after its removal`;
    throw new SlimeError("engine.unavailable", `${engine}: ${reason}`, { engine, reason });
  }

  async close(): Promise<void> {
    await this.#http.close();
  }

  /** A job that failed says so only where it is asked for by id. @throws `engine.unavailable` for one that failed. */
  async #jobFailure(id: string, engine: string): Promise<false> {
    const reply = await this.#call("GET", `/workers/${id}`, undefined, [404]);
    const status = reply.status === 404 ? null : replyJson(this.url, reply)["job_status"];
    if (typeof status !== "object" || status === null || !("status" in status) || status.status !== "failed") return false;
    const reason = "message" in status && typeof status.message === "string" ? status.message : "its registration failed";
    throw new SlimeError("engine.unavailable", `sglang_router at ${this.url} could not register ${engine}: ${reason}`, { engine, reason });
  }

  async #until(isSo: () => Promise<boolean>, waitMs: number): Promise<boolean> {
    const untilMs = this.#clock.nowMs() + waitMs;
    for (let pauseMs = pollMsFirst; ; pauseMs = Math.min(pollMsMax, pauseMs * 1.5)) {
      if (await isSo()) return true;
      if (this.#clock.nowMs() >= untilMs) return false;
      await sleep(this.#clock, pauseMs);
    }
  }

  async #call(method: "GET" | "POST" | "DELETE", path: string, json?: unknown, fine: readonly number[] = []): Promise<HttpReply> {
    const reply = await this.#http.call({ method, path, timeoutMs: callMsMax, ...(json === undefined ? {} : { json }) });
    if ((reply.status >= 200 && reply.status < 300) || fine.includes(reply.status)) return reply;
    const reason = refusalText(reply.body);
    throw new SlimeError("engine.refused", `sglang_router answered ${method} ${path} with ${reply.status}: ${reason}`, {
      engine: this.url,
      status: reply.status,
      reason,
    });
  }
}
