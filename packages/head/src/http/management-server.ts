/**
 * The management API over HTTP: Ray's job routes and shapes, resumable logs, cluster state, Prometheus metrics.
 * Loopback only; every request passes the guard against rebound names and foreign pages.
 */

import type { Readable } from "node:stream";
import websocket from "@fastify/websocket";
import { type Clock, factsOf, type Random, SlimeError } from "@slime/core";
import { type ClusterRegistry, logSize, readLog } from "@slime/telemetry";
import fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from "fastify";
import type { Head } from "../head-api.js";
import { headLimits } from "../limits.js";
import { type PackageStore, packageBytesMax } from "../packages/package-store.js";
import { type JobRecord, jobEnded } from "../state/records.js";
import { guardRequest, guardStatus } from "./guard.js";
import { streamLog, tailLog } from "./log-stream.js";
import { scrape } from "./metrics.js";
import { actorJson, groupJson, jobJson, nodesJson, statusJson } from "./state-json.js";
import { readSubmission } from "./submission.js";

const limits = {
  bodyBytesMax: 1_048_576,
  logBytesMax: 16 * 1_048_576,
  streamsMax: 256,
  stopWaitMs: 60_000,
  stopWaitMsMax: 600_000,
} as const;
/** Version of Ray's job API that these routes follow. */
const jobApiVersion = "4";

export interface ManagementOptions {
  readonly host: string;
  readonly port: number;
  readonly clock: Clock;
  readonly random: Random;
  readonly version: string;
  readonly packages: PackageStore;
  readonly registry: ClusterRegistry;
}

export interface ManagementServer extends AsyncDisposable {
  readonly port: number;
  readonly close: () => Promise<void>;
}

/** Listens for the CLI, Ray's job client and dashboards; port 0 takes a free one. @throws SlimeError `port.taken`. */
export async function serveManagement(head: Head, options: ManagementOptions): Promise<ManagementServer> {
  const app = managementApp(head, options);
  try {
    await app.listen({ host: options.host, port: options.port });
  } catch (error) {
    await app.close();
    if ((error as NodeJS.ErrnoException).code !== "EADDRINUSE") throw error;
    throw new SlimeError(
      "port.taken",
      `port ${options.port} of ${options.host} is taken: stop what holds it or choose another --http-port`,
      { port: options.port, pid: null },
      { cause: error },
    );
  }
  const address = app.server.address();
  const server: ManagementServer = {
    port: typeof address === "object" && address !== null ? address.port : options.port,
    async close() {
      app.server.closeAllConnections();
      await app.close();
    },
    [Symbol.asyncDispose]: () => server.close(),
  };
  return server;
}

/** The routes, without a listener: tests inject requests. */
export function managementApp(head: Head, options: ManagementOptions): FastifyInstance {
  const app = fastify({
    bodyLimit: limits.bodyBytesMax,
    routerOptions: { ignoreTrailingSlash: true },
    requestTimeout: 0,
    forceCloseConnections: true,
  });
  app.removeContentTypeParser("text/plain"); // a form of another site can send that without asking first
  app.addHook("onRequest", async (request) => guardRequest(request.headers));
  app.addHook("onResponse", async (request, reply) => {
    // A connection whose upgrade was refused belongs to nobody any more: left open, it would hold up the server's close.
    if (request.headers.upgrade !== undefined) request.raw.socket.destroySoon();
    options.registry.add("slime_http_requests_total", 1, {
      route: request.routeOptions.url ?? "unknown",
      status: String(reply.statusCode),
    });
  });
  app.setErrorHandler((error, _request, reply) => sendError(reply, error));
  app.setNotFoundHandler((request, reply) =>
    sendError(reply, new SlimeError("not_found", `there is no ${request.method} ${request.url}`, { kind: "route", id: request.url })),
  );
  jobRoutes(app, head, options);
  app.register(async (scope) => packageRoutes(scope, options.packages));
  stateRoutes(app, head, options);
  return app;
}

function sendError(reply: FastifyReply, error: unknown): FastifyReply {
  const known = SlimeError.isAny(error);
  const given = error instanceof Error && "statusCode" in error && typeof error.statusCode === "number" ? error.statusCode : null;
  const status = known ? (error.code === "address.refused" ? guardStatus : factsOf(error).httpStatus) : (given ?? 500);
  const body = known
    ? { code: error.code, message: error.message, details: error.details }
    : { code: given === null ? "internal" : "http", message: error instanceof Error ? error.message : String(error), details: null };
  return reply.code(status).send({ error: body });
}

function jobRoutes(app: FastifyInstance, head: Head, options: ManagementOptions): void {
  const { clock, random, packages } = options;
  let streams = 0;
  const find = (request: FastifyRequest): JobRecord => {
    const { id } = request.params as { readonly id: string };
    const job = head.state.jobs.get(id) ?? head.state.jobs.where("submission", id)[0];
    if (job === undefined)
      throw new SlimeError("not_found", `there is no job ${id}; \`slime job list\` shows those there are`, { kind: "job", id });
    return job;
  };
  app.get("/api/version", async () => ({
    version: jobApiVersion,
    ray_version: "2.0.0",
    ray_commit: "",
    session_name: head.clusterId,
    slime_version: options.version,
  }));
  app.post("/api/jobs", async (request) => {
    const job = await readSubmission(request.body, {
      random,
      packages,
      httpAddress: head.state.httpAddress,
      known: (submissionId) => {
        const there = head.state.jobs.where("submission", submissionId)[0];
        return there === undefined ? null : { jobId: there.jobId, cwd: there.spec.cwd };
      },
    });
    const record = (await head.ask({ kind: "job.submit", job })) as JobRecord;
    return { job_id: record.jobId, submission_id: record.submissionId };
  });
  app.get("/api/jobs", async () => inOrder(head.state.jobs.values()).map((job) => jobJson(head.state, job)));
  app.get("/api/jobs/:id", async (request) => jobJson(head.state, find(request)));
  app.delete("/api/jobs/:id", async (request) => ({ deleted: await head.ask({ kind: "job.delete", jobId: find(request).jobId }) }));
  app.post("/api/jobs/:id/stop", async (request) => {
    const job = find(request);
    const query = request.query as { readonly grace_ms?: string; readonly wait_ms?: string };
    const ended = await head.ask({
      kind: "job.stop",
      jobId: job.jobId,
      graceMs: number(query.grace_ms, headLimits.jobStopGraceMs, limits.stopWaitMsMax),
      waitMs: number(query.wait_ms, limits.stopWaitMs, limits.stopWaitMsMax),
      reason: "it was stopped by request",
    });
    return { stopped: ended !== null };
  });
  app.get("/api/jobs/:id/logs", async (request) => {
    const { logPaths } = find(request);
    const from = Math.max(0, (await logSize(logPaths)) - limits.logBytesMax);
    const parts: Buffer[] = [];
    for (let at = from; ; ) {
      const part = await readLog(logPaths, at, 1_048_576);
      if (part.length === 0 || at - from > limits.logBytesMax) break;
      parts.push(part);
      at += part.length;
    }
    return { logs: Buffer.concat(parts).toString("utf8") };
  });
  const sourceOf = (jobId: string) => {
    const now = () => head.state.jobs.get(jobId);
    return {
      files: () => now()?.logPaths ?? [],
      ended: () => {
        const job = now();
        return job === undefined || jobEnded(job);
      },
    };
  };
  /** One of the bounded number of followers. @throws SlimeError `wire.limit`. */
  const follow = async (run: () => Promise<void>): Promise<void> => {
    if (streams >= limits.streamsMax)
      throw new SlimeError("wire.limit", `${limits.streamsMax} logs are being followed`, {
        what: "log streams",
        value: streams + 1,
        max: limits.streamsMax,
      });
    streams++;
    try {
      await run();
    } finally {
      streams--;
    }
  };
  app.get("/api/jobs/:id/logs/follow", async (request, reply) => {
    const { jobId } = find(request);
    const query = request.query as { readonly offset?: string };
    const resumed = request.headers["last-event-id"];
    const offset = number(typeof resumed === "string" ? resumed : query.offset, 0, Number.MAX_SAFE_INTEGER);
    const gone = new AbortController();
    reply.raw.on("close", () => gone.abort(new Error("the reader left")));
    const last = () => {
      const job = head.state.jobs.get(jobId);
      return job === undefined ? null : jobJson(head.state, job);
    };
    await follow(async () => {
      reply.hijack();
      try {
        await streamLog(reply.raw, sourceOf(jobId), { clock, offset, signal: gone.signal, last });
      } catch {
        reply.raw.destroy(); // the reader sees a broken stream and resumes where it was
      }
    });
  });
  app.register(async (scope) => {
    await scope.register(websocket, { options: { maxPayload: 1_024 } });
    scope.get("/api/jobs/:id/logs/tail", { websocket: true }, async (socket, request) => {
      const gone = new AbortController();
      socket.on("close", () => gone.abort(new Error("the reader left")));
      socket.on("error", () => gone.abort(new Error("the reader broke off")));
      try {
        const { jobId } = find(request);
        await follow(() => tailLog(socket, sourceOf(jobId), { clock, offset: 0, signal: gone.signal }));
      } catch (error) {
        socket.close(1011, (error instanceof Error ? error.message : String(error)).slice(0, 100));
      }
    });
  });
}

function packageRoutes(app: FastifyInstance, packages: PackageStore): void {
  type Params = { readonly protocol: string; readonly name: string };
  // Only here: a body of any type, or of none as Ray's client sends it, is bytes.
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    "*",
    { bodyLimit: packageBytesMax },
    (_request: FastifyRequest, body: Readable, done: (error: Error | null, body: Readable) => void) => done(null, body),
  );
  app.get("/api/packages/:protocol/:name", async (request, reply) => {
    const { protocol, name } = request.params as Params;
    if (await packages.has(protocol, name)) return reply.code(200).send({});
    throw new SlimeError("not_found", `the package ${protocol}://${name} has not been uploaded`, {
      kind: "package",
      id: `${protocol}://${name}`,
    });
  });
  app.put("/api/packages/:protocol/:name", async (request) => {
    const { protocol, name } = request.params as Params;
    await packages.put(protocol, name, request.body as Readable);
    return {};
  });
}

function stateRoutes(app: FastifyInstance, head: Head, options: ManagementOptions): void {
  const about = () => ({ nowMs: head.nowMs(), readOnly: head.readOnly() });
  app.get("/api/status", async () => statusJson(head.state, about()));
  app.get("/api/nodes", async () => nodesJson(head.state, head.nowMs()));
  app.get("/api/actors", async () => inOrder(head.state.actors.values()).map((actor) => actorJson(head.state, actor)));
  app.get("/api/placement_groups", async () => inOrder(head.state.groups.values()).map(groupJson));
  app.get("/metrics", async (_request, reply) => reply.type(options.registry.contentType).send(await scrape(head, options.registry)));
}

/** Oldest first; a store gives its records back in the order of their ids. */
function inOrder<R extends { readonly order: number }>(records: Iterable<R>): readonly R[] {
  return [...records].sort((a, b) => a.order - b.order);
}

/** A whole number of a query string. @throws SlimeError `config.invalid`. */
function number(given: string | undefined, fallback: number, max: number): number {
  if (given === undefined || given === "") return fallback;
  if (!/^\d{1,16}$/.test(given) || Number(given) > max)
    throw new SlimeError("config.invalid", `${JSON.stringify(given)} is no whole number from 0 to ${max}`, { issues: [given] });
  return Number(given);
}
