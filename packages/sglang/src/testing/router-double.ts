import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { Clock } from "@slime/core";

export interface RouterDouble extends AsyncDisposable {
  readonly url: string;
  readonly metricsUrl: string;
  /** What it was asked to change, in order: "add URL type", "remove URL". */
  readonly asked: readonly string[];
  /** In rotation now. */
  readonly rotation: () => readonly string[];
}

export interface RouterDoubleOptions {
  readonly clock: Clock;
  /** How long its jobs take. */
  readonly jobMs?: number;
  /** Engines that nobody finds: their registration goes on for ever, or fails. */
  readonly dead?: ReadonlyMap<string, "processing" | "failed">;
  /** Removals that are accepted and never done. */
  readonly keeps?: ReadonlySet<string>;
}

/** Answers the routes for workers of sglang_router 0.3.2 as it does: changes are accepted with 202 and done later, failures show by id only. */
export async function routerDouble(options: RouterDoubleOptions): Promise<RouterDouble> {
  const { clock, jobMs = 30, dead = new Map(), keeps = new Set() } = options;
  const workers = new Map<string, { readonly id: string; readonly type: string }>();
  const pending = new Map<string, { readonly url: string; readonly status: string }>();
  const asked: string[] = [];
  let ids = 0;

  const add = (body: { readonly url: string; readonly worker_type?: string; readonly bootstrap_port?: number }) => {
    const type = body.worker_type ?? "regular";
    asked.push(`add ${body.url} ${type}${body.bootstrap_port === undefined ? "" : ` ${body.bootstrap_port}`}`);
    const id = workers.get(body.url)?.id ?? `00000000-0000-4000-8000-${String(++ids).padStart(12, "0")}`;
    const fate = dead.get(body.url);
    pending.set(id, { url: body.url, status: fate ?? "processing" });
    if (fate === undefined) {
      clock.after(jobMs, () => {
        pending.delete(id);
        workers.set(body.url, { id, type });
      });
    }
    return [202, { status: "accepted", worker_id: id, url: body.url, location: `/workers/${id}` }] as const;
  };
  const remove = (id: string) => {
    const found = [...workers].find(([, worker]) => worker.id === id);
    if (found === undefined) return [404, { error: `Worker ${id} not found`, code: "WORKER_NOT_FOUND" }] as const;
    asked.push(`remove ${found[0]}`);
    if (!keeps.has(found[0])) clock.after(jobMs, () => void (workers.get(found[0])?.id === id && workers.delete(found[0])));
    return [202, { status: "accepted", worker_id: id }] as const;
  };
  const one = (id: string) => {
    const job = pending.get(id);
    if (job !== undefined)
      return [
        200,
        {
          id,
          url: job.url,
          is_healthy: false,
          job_status: { status: job.status, message: job.status === "failed" ? "nobody listens there" : null },
        },
      ] as const;
    return [[...workers.values()].some((worker) => worker.id === id) ? 200 : 404, { id }] as const;
  };
  const list = () =>
    [200, { workers: [...workers].map(([url, { id, type }]) => ({ id, url, worker_type: type, is_healthy: true, load: 0 })) }] as const;

  const answer = async (request: IncomingMessage, response: ServerResponse) => {
    const path = request.url ?? "";
    const id = path.startsWith("/workers/") ? path.slice("/workers/".length) : null;
    const body = await bodyOf(request);
    if (path === "/metrics") return response.end(metricsPage);
    const [status, json] =
      path === "/workers" && request.method === "POST"
        ? add(JSON.parse(body))
        : path === "/workers"
          ? list()
          : id === null
            ? ([404, {}] as const)
            : request.method === "DELETE"
              ? remove(id)
              : one(id);
    return response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(json));
  };
  const server = createServer((request, response) => void answer(request, response));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  const url = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  return {
    url,
    metricsUrl: `${url}/metrics`,
    asked,
    rotation: () => [...workers.keys()],
    async [Symbol.asyncDispose]() {
      server.closeAllConnections();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
  };
}

const metricsPage = `# TYPE smg_router_requests_total counter
smg_router_requests_total{endpoint="generate",streaming="false"} 4
smg_router_requests_total{endpoint="chat",streaming="true"} 3
smg_router_requests_total_other 99
smg_router_request_errors_total{endpoint="generate"} 2
`;

async function bodyOf(request: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  for await (const chunk of request) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString("utf8");
}
