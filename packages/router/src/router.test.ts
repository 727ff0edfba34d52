import { connect } from "node:net";
import { SlimeError } from "@slime/core";
import { keptLog } from "@slime/core/testing";
import { afterEach, describe, expect, it } from "vitest";
import { httpRouter } from "./router-client.js";
import { type RunningRouter, startRouter } from "./start.js";
import { answerJson, type ScriptedEngine, scriptedEngine } from "./testing/index.js";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing[Symbol.asyncDispose]();
});

/** A router with engines already admitted. Probes run when the test asks for one. */
async function routed(
  engines: number,
  options: Parameters<typeof startRouter>[0] = {},
): Promise<{ readonly router: RunningRouter; readonly engines: readonly ScriptedEngine[] }> {
  const router = await startRouter({
    policy: "round_robin",
    ...options,
    limits: { probeEveryMs: 600_000, stallMs: 50, closeMs: 50, ...options.limits },
  });
  open.push(router);
  const made: ScriptedEngine[] = [];
  const client = httpRouter(router.url);
  for (let i = 0; i < engines; i++) {
    const engine = await scriptedEngine();
    made.push(engine);
    open.push(engine);
    await client.add(engine.url);
  }
  await client.close();
  return { router, engines: made };
}

const at = <T>(list: readonly T[], i: number): T => {
  const item = list[i];
  if (item === undefined) throw new RangeError(`nothing at ${i}`);
  return item;
};
const post = (url: string, body: string, headers: Record<string, string> = {}) =>
  fetch(url, { method: "POST", body, headers: { "content-type": "application/json", ...headers } });
const probeAll = (router: RunningRouter) => Promise.all(router.dispatcher.fleet.workers.map(({ id }) => router.dispatcher.probe(id)));

describe("proxying", () => {
  it("passes bytes, query, headers and status through untouched and says who answered", async () => {
    const { router, engines } = await routed(1);
    const engine = at(engines, 0);
    engine.script = (_request, response) =>
      response.writeHead(418, { "x-answer": "yes", "content-type": "application/json" }).end('{ "a" :1 }');
    const body = '{ "input_ids" :[1,2,3],\n "custom_x": 1, "return_routed_experts":true }';
    const reply = await post(`${router.url}/generate?x=1&y=%20`, body, {
      "x-smg-routing-key": "k",
      "x-foo": "bar",
      "x-request-id": "mine",
    });
    expect(reply.status).toBe(418);
    expect(await reply.text()).toBe('{ "a" :1 }');
    expect(Object.fromEntries(reply.headers)).toMatchObject({ "x-answer": "yes", "x-slime-engine": engine.url, "x-request-id": "mine" });
    expect(reply.headers.get("x-slime-weight-version")).toBeNull();
    expect(at(engine.seen, 0)).toMatchObject({
      method: "POST",
      path: "/generate?x=1&y=%20",
      headers: { "x-smg-routing-key": "k", "x-foo": "bar", "x-request-id": "mine", "content-length": String(body.length) },
    });
    expect(at(engine.seen, 0).body.toString()).toBe(body);
  });

  it("passes large bodies both ways, and a stream as it comes", async () => {
    const { router, engines } = await routed(1);
    const engine = at(engines, 0);
    engine.script = ({ body }, response) => response.writeHead(200, { "content-type": "application/octet-stream" }).end(body);
    const big = "0123456789".repeat(300_000);
    expect(await (await post(`${router.url}/anything`, big)).text()).toBe(big);

    let next: () => void = () => {};
    engine.script = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write("data: 1\n\n");
      next = () => response.end("data: [DONE]\n\n");
    };
    const reply = await post(`${router.url}/generate`, "{}");
    const reader = (reply.body ?? new ReadableStream<Uint8Array>()).getReader();
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("data: 1\n\n");
    next();
    expect(Buffer.from((await reader.read()).value ?? []).toString()).toBe("data: [DONE]\n\n");
  });

  it("a stream that breaks within an event ends in an error event; another reply in a broken connection", async () => {
    const { router, engines } = await routed(2);
    for (const engine of engines) {
      engine.script = ({ path }, response) => {
        response.writeHead(200, { "content-type": path === "/generate" ? "text/event-stream" : "text/plain" });
        response.write('data: {"text": "a"}\n\ndata: {"tex', () => setImmediate(() => response.destroy()));
      };
    }
    const text = await (await post(`${router.url}/generate`, "{}")).text();
    expect(text).toMatch(
      /^data: \{"text": "a"\}\n\ndata: \{"error":\{"message":"the engine http:.* broke off: .*","code":502,"type":"engine.unavailable"\}\}\n\n$/,
    );
    const plain = await post(`${router.url}/other`, "{}");
    await expect(plain.text()).rejects.toThrow();
    expect(engines.map(({ seen }) => seen.length)).toEqual([1, 1]);
  });

  it("fails over when an engine is dead or breaks before the first byte; 500 and 400 are passed on, 503 is tried elsewhere", async () => {
    const { router, engines } = await routed(2);
    const [a, b] = [at(engines, 0), at(engines, 1)];
    a.script = (_request, response) => response.socket?.resetAndDestroy();
    for (let i = 0; i < 4; i++) expect((await post(`${router.url}/generate`, "{}")).headers.get("x-slime-engine")).toBe(b.url);
    await a.kill();
    for (let i = 0; i < 4; i++) expect((await post(`${router.url}/generate`, "{}")).headers.get("x-slime-engine")).toBe(b.url);
    await a.revive();
    await probeAll(router);
    for (const status of [400, 500]) {
      for (const engine of engines) engine.script = (_request, response) => answerJson(response, { error: { message: "no" } }, status);
      expect((await post(`${router.url}/generate`, "{}")).status).toBe(status);
    }
    a.script = (_request, response) => answerJson(response, {}, 503);
    b.script = (_request, response) => answerJson(response, {});
    for (let i = 0; i < 2; i++) expect((await post(`${router.url}/generate`, "{}")).headers.get("x-slime-engine")).toBe(b.url);
  });

  it("leaves a hung engine for another", async () => {
    const { router, engines } = await routed(2, { limits: { probeTimeoutMs: 1_000 } });
    const [a, b] = [at(engines, 0), at(engines, 1)];
    a.script = () => {};
    a.health = null;
    const replies = [post(`${router.url}/generate`, "{}"), post(`${router.url}/generate`, "{}")];
    await a.saw(1);
    await probeAll(router);
    expect((await Promise.all(replies)).map((reply) => reply.headers.get("x-slime-engine"))).toEqual([b.url, b.url]);
    expect(router.dispatcher.fleet.byUrl(a.url)?.health.kind).toBe("unhealthy");
  });

  it("a client that leaves takes its request along", async () => {
    const { router, engines } = await routed(1);
    const closed = new Promise<void>((resolve) => (at(engines, 0).script = (_request, response) => response.once("close", resolve)));
    const gone = new AbortController();
    const reply = fetch(`${router.url}/generate`, { method: "POST", body: "{}", signal: gone.signal });
    await at(engines, 0).saw(1);
    gone.abort();
    await expect(reply).rejects.toThrow();
    await closed;
    expect(router.dispatcher.counts.failures).toBe(0);
  });

  it("refuses bodies past the limit and says 503 when no engine comes", async () => {
    const { log, lines } = keptLog();
    const { router } = await routed(0, { log, limits: { bodyBytesMax: 100, waitMs: 20 } });
    expect((await post(`${router.url}/generate`, "x".repeat(101))).status).toBe(413);
    const none = await post(`${router.url}/generate`, "{}");
    expect(none.status).toBe(503);
    expect(await none.json()).toMatchObject({
      error: { type: "no_available_workers", message: expect.stringContaining("no engine is registered") as string },
    });
    const raw = connect(Number(new URL(router.url).port), "127.0.0.1");
    const answer = new Promise<string>((resolve) => raw.once("data", (data) => resolve(data.toString())));
    raw.write("POST /generate HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n");
    expect(await answer).toMatch(/^HTTP\/1.1 400/);
    raw.destroy();
    expect(lines.filter(({ level }) => level === "error")).toEqual([]);
  });
});

describe("workers", () => {
  it("are added, listed, shown and removed as sglang_router does", async () => {
    const { router } = await routed(0);
    const engine = await scriptedEngine();
    open.push(engine);
    const added = await post(`${router.url}/workers`, JSON.stringify({ url: engine.url, worker_type: "regular" }));
    expect(added.status).toBe(202);
    const { worker_id: id, location } = (await added.json()) as { worker_id: string; location: string };
    expect(added.headers.get("location")).toBe(location);
    const again = (await (await post(`${router.url}/workers`, JSON.stringify({ url: `${engine.url}/` }))).json()) as { worker_id: string };
    expect(again.worker_id).toBe(id);
    await probeAll(router);
    expect(await (await fetch(`${router.url}/workers`)).json()).toMatchObject({
      workers: [{ id, url: engine.url, is_healthy: true, load: 0, worker_type: "regular" }],
      total: 1,
      stats: { regular_count: 1 },
    });
    expect(await (await fetch(`${router.url}${location}`)).json()).toMatchObject({ id, state: "healthy" });
    expect((await fetch(`${router.url}/readiness`)).status).toBe(200);
    expect(await (await fetch(`${router.url}/list_workers`)).json()).toEqual({ urls: [engine.url] });
    expect((await fetch(`${router.url}${location}`, { method: "DELETE" })).status).toBe(202);
    expect((await fetch(`${router.url}${location}`)).status).toBe(404);
    expect((await fetch(`${router.url}/workers/nonsense`)).status).toBe(400);
    expect((await post(`${router.url}/workers`, "{}")).status).toBe(422);
    expect((await post(`${router.url}/workers`, "{")).status).toBe(400);
    for (const bad of [{ worker_type: "encoder" }, { worker_type: "prefill" }, { worker_type: "prefill", bootstrap_port: "9" }])
      expect((await post(`${router.url}/workers`, JSON.stringify({ url: engine.url, ...bad }))).status).toBe(400);
    expect((await fetch(`${router.url}/readiness`)).status).toBe(503);
    expect((await post(`${router.url}/add_worker?url=${encodeURIComponent(engine.url)}`, "")).status).toBe(202);
    expect((await post(`${router.url}/remove_worker?url=${encodeURIComponent(engine.url)}`, "")).status).toBe(202);
    expect((await fetch(`${router.url}/metrics`)).status).toBe(200);
  });

  it("an abort reaches every engine, fenced ones too", async () => {
    const { router, engines } = await routed(2);
    await router.dispatcher.fence(at(router.dispatcher.fleet.workers, 0).id);
    const reply = await post(`${router.url}/abort_request`, '{"abort_all":true}');
    expect(reply.status).toBe(200);
    expect(engines.map(({ seen }) => at(seen, 0).body.toString())).toEqual(['{"abort_all":true}', '{"abort_all":true}']);
    at(engines, 1).script = (_request, response) => answerJson(response, { error: { message: "busy" } }, 400);
    const flush = await fetch(`${router.url}/flush_cache`);
    expect(flush.status).toBe(502);
    expect(await flush.json()).toMatchObject({ workers: [{ status: 200 }, { status: 400 }] });
  });
});

describe("the router, driven over HTTP", () => {
  it("fences, opens with a version that replies name, drains, counts", async () => {
    const { router, engines } = await routed(1);
    const engine = at(engines, 0);
    const driven = httpRouter(router.url);
    await driven.fence(engine.url);
    const waiting = post(`${router.url}/generate`, "{}");
    while (router.dispatcher.waiting === 0) await new Promise((resolve) => setImmediate(resolve));
    expect((await driven.stats()).workers).toMatchObject([{ url: engine.url, state: "fenced", weightVersion: null }]);
    expect(engine.seen).toHaveLength(0);
    await driven.open(engine.url, 7);
    expect((await waiting).headers.get("x-slime-weight-version")).toBe("7");

    let finish: () => void = () => {};
    engine.script = (_request, response) => void (finish = () => answerJson(response, {}));
    const running = post(`${router.url}/generate`, "{}");
    await engine.saw(2);
    await expect(driven.drain(engine.url, 10)).rejects.toSatisfy((error) => SlimeError.is(error, "call.deadline"));
    const drained = driven.drain(engine.url, 10_000);
    finish();
    await Promise.all([running, drained]);
    expect(await driven.stats()).toMatchObject({ requests: 2, failures: 0, retries: 0, workers: [{ state: "draining", inFlight: 0 }] });
    await driven.remove(engine.url);
    await expect(driven.fence(engine.url)).rejects.toSatisfy((error) => SlimeError.is(error, "not_found"));
    await driven.close();
  });

  it("an engine added fenced gets nothing before it is opened", async () => {
    const { router } = await routed(0);
    const engine = await scriptedEngine();
    open.push(engine);
    const driven = httpRouter(router.url);
    await driven.add(engine.url, { fenced: true });
    await probeAll(router);
    expect((await driven.stats()).workers).toMatchObject([{ state: "fenced" }]);
    await driven.open(engine.url, 1);
    expect((await post(`${router.url}/generate`, "{}")).headers.get("x-slime-weight-version")).toBe("1");
    await driven.close();
  });

  it("a restarted engine with old weights stays out until it has the fleet's", async () => {
    const { router, engines } = await routed(1);
    const engine = at(engines, 0);
    const driven = httpRouter(router.url);
    await driven.open(engine.url, 3);
    await engine.kill();
    await probeAll(router);
    expect((await driven.stats()).workers).toMatchObject([{ state: "unhealthy" }]);
    await engine.revive();
    await probeAll(router);
    expect((await driven.stats()).workers).toMatchObject([{ state: "fenced" }]);
    engine.version = "3";
    await probeAll(router);
    expect((await driven.stats()).workers).toMatchObject([{ state: "healthy", weightVersion: 3 }]);
    await driven.close();
  });

  it("says when an engine to be added does not answer, and refuses addresses beyond loopback", async () => {
    const { router } = await routed(0);
    const driven = httpRouter(router.url);
    await expect(driven.add("http://127.0.0.1:1")).rejects.toSatisfy((error) => SlimeError.is(error, "engine.unavailable"));
    await driven.close();
    await expect(startRouter({ host: "0.0.0.0" })).rejects.toSatisfy((error) => SlimeError.is(error, "address.refused"));
    await expect(startRouter({ port: Number(new URL(router.url).port) })).rejects.toSatisfy((error) => SlimeError.is(error, "port.taken"));
  });
});
