import { createServer, type Server } from "node:http";
import { join } from "node:path";
import { silentLogger, systemClock } from "@slime/core";
import { exists } from "@slime/platform";
import { temporaryDirectory } from "@slime/platform/testing";
import { type RunningSglangRouter, routerArgTable, type SglangRouterOptions, sglangRouter, startSglangRouter } from "@slime/sglang";
import { freePort } from "@slime/sglang/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { realEnv } from "./real-env.js";

const { python, env } = realEnv();

/** Answers what sglang_router asks an engine before it takes it, and requests with its own name. */
async function fakeEngine(name: string): Promise<{ readonly url: string; readonly server: Server }> {
  const info = { model_path: "/none", served_model_name: "m", tp_size: 1, dp_size: 1, disaggregation_mode: "null", version: "0.5.15" };
  const server = createServer((request, response) => {
    request.resume();
    request.on("end", () => {
      const body = request.url === "/generate" ? { text: name } : request.url?.startsWith("/v1/loads") ? { loads: [] } : info;
      response.setHeader("content-type", "application/json");
      response.end(JSON.stringify(body));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  return { url: `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`, server };
}

describe("the real sglang_router", () => {
  const engines: { readonly url: string; readonly server: Server }[] = [];
  beforeAll(async () => {
    engines.push(await fakeEngine("a"), await fakeEngine("b"));
  });
  afterAll(() => {
    for (const { server } of engines) {
      server.closeAllConnections();
      server.close();
    }
  });
  const ask = async (router: RunningSglangRouter, key = "k"): Promise<string> => {
    const headers = { "content-type": "application/json", "x-smg-routing-key": key };
    const reply = await fetch(`${router.url}/generate`, {
      method: "POST",
      headers,
      body: JSON.stringify({ input_ids: [1], sampling_params: {} }),
    });
    return reply.ok ? ((await reply.json()) as { readonly text: string }).text : String(reply.status);
  };
  const start = async (root: string, more: Partial<SglangRouterOptions>) =>
    startSglangRouter(
      {
        python,
        env,
        host: "127.0.0.1",
        port: await freePort(),
        metricsPort: await freePort(),
        policy: "round_robin",
        pd: false,
        requestTimeoutSecs: 60,
        passThrough: {},
        ...more,
      },
      {
        clock: systemClock,
        log: silentLogger,
        logFile: join(root, "router.log"),
        table: await routerArgTable(python, { env: process.env }),
        inherited: process.env,
      },
    );

  it("serves engines that are open, and none that is fenced; nothing of it is left", async () => {
    await using root = await temporaryDirectory();
    const [a, b] = engines.map(({ url }) => url) as [string, string];
    const router = await start(root.path, { policy: "round_robin" });
    const port = sglangRouter(router.url, { clock: systemClock, metricsUrl: router.metricsUrl });
    await port.add(a);
    await port.add(b, { fenced: true });
    expect(new Set([await ask(router), await ask(router), await ask(router)])).toEqual(new Set(["a"]));
    await port.open(b, 2);
    await port.fence(a);
    expect(new Set([await ask(router), await ask(router)])).toEqual(new Set(["b"]));
    await port.open(a, 2);
    expect(new Set([await ask(router), await ask(router)])).toEqual(new Set(["a", "b"]));
    await port.drain(b, 5_000);
    await port.remove(a);
    expect(await ask(router)).toBe("503");
    const stats = await port.stats();
    expect(stats.workers.map(({ url, state }) => [url, state])).toEqual([[b, "draining"]]);
    expect(stats.requests).toBeGreaterThanOrEqual(8);
    await port.close();
    await router.kill();
    expect(await router.exited).toMatchObject({ reason: "killed by its owner" });
    expect(exists(router.pid)).toBe(false);
  });

  it.each(["random", "power_of_two", "consistent_hashing", "cache_aware"] as const)("routes by %s", async (policy) => {
    await using root = await temporaryDirectory();
    await using router = await start(root.path, { policy });
    const port = sglangRouter(router.url, { clock: systemClock });
    for (const { url } of engines) await port.add(url);
    const said = new Set<string>();
    for (let i = 0; i < 12; i++) said.add(await ask(router, policy === "consistent_hashing" ? "one" : `k${i}`));
    if (policy === "consistent_hashing") expect(said.size).toBe(1);
    expect([...said].every((name) => name === "a" || name === "b")).toBe(true);
    expect((await port.stats()).workers).toHaveLength(2);
    await port.close();
  });

  it("loses no request to an engine that dies, and asks it no more once its breaker is open", async () => {
    await using root = await temporaryDirectory();
    await using router = await start(root.path, {});
    const port = sglangRouter(router.url, { clock: systemClock, metricsUrl: router.metricsUrl });
    const frail = await fakeEngine("frail");
    await port.add(frail.url);
    await port.add(engines[0]?.url ?? "");
    const said: string[] = [];
    const client = async () => {
      for (let i = 0; i < 40; i++) {
        said.push(await ask(router));
        if (said.length === 60) {
          frail.server.closeAllConnections();
          frail.server.close();
        }
      }
    };
    await Promise.all(Array.from({ length: 8 }, client));
    expect(said.filter((name) => name !== "a" && name !== "frail")).toEqual([]);
    expect(said.slice(-100)).toEqual(Array.from({ length: 100 }, () => "a"));
    const { retries } = await port.stats();
    expect(retries).toBeGreaterThan(0);
    expect(retries).toBeLessThan(40);
    await port.close();
  });

  it("pairs prefill and decode", async () => {
    await using root = await temporaryDirectory();
    await using router = await start(root.path, { pd: true, policy: "random" });
    const port = sglangRouter(router.url, { clock: systemClock });
    const [a, b] = engines.map(({ url }) => url) as [string, string];
    await port.add(a, { role: { kind: "prefill", bootstrapPort: 8998 } });
    await port.add(b, { role: { kind: "decode" } });
    expect(await ask(router)).toBe("b");
    await port.close();
  });

  it("ends at once with its own words when a setting is none", async () => {
    await using root = await temporaryDirectory();
    const starting = start(root.path, { passThrough: { cache_threshold: "high" } });
    await expect(starting).rejects.toThrow(/ended before it was ready.*cache_threshold/);
  });

  it("has not an engine that nobody finds", async () => {
    await using root = await temporaryDirectory();
    await using router = await start(root.path, {});
    const port = sglangRouter(router.url, { clock: systemClock, addMsMax: 500 });
    await expect(port.add("http://127.0.0.1:9")).rejects.toMatchObject({ code: "engine.unavailable" });
    await port.close();
  });
});
