import { createServer } from "node:http";
import { systemClock } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { countsOf, sglangRouter } from "./sglang-router.js";
import { routerDouble } from "./testing/router-double.js";

const clock = systemClock;
const [a, b] = ["http://127.0.0.1:9001", "http://127.0.0.1:9002"] as const;

describe("sglang_router through the router's port", () => {
  it("adds, fences and opens engines, each change done when it resolves (F1, F2)", async () => {
    await using double = await routerDouble({ clock });
    const router = sglangRouter(double.url, { clock });
    await router.add(a);
    await router.add(`${b}/`, { fenced: true });
    expect(double.rotation()).toEqual([a]);
    await router.fence(a);
    expect(double.rotation()).toEqual([]);
    await router.open(a, 3);
    await router.open(b, 3);
    expect(double.rotation()).toEqual([a, b]);
    await router.remove(a);
    expect(double.rotation()).toEqual([b]);
    expect(double.asked).toEqual([`add ${a} regular`, `remove ${a}`, `add ${a} regular`, `add ${b} regular`, `remove ${a}`]);
    await router.close();
  });

  it("says what it knows of each engine, and the router's counts", async () => {
    await using double = await routerDouble({ clock });
    const router = sglangRouter(double.url, { clock, metricsUrl: double.metricsUrl });
    await router.add(a);
    await router.add(b, { fenced: true });
    await router.fence(a);
    await router.open(a, 7);
    const stats = await router.stats();
    expect(stats).toMatchObject({ requests: 7, failures: 2, retries: 0 });
    expect(stats.workers.map(({ url, state, weightVersion }) => [url, state, weightVersion])).toEqual([
      [a, "healthy", 7],
      [b, "fenced", null],
    ]);
    await router.close();
  });

  it("keeps the role of a fenced engine", async () => {
    await using double = await routerDouble({ clock });
    const router = sglangRouter(double.url, { clock });
    await router.add(a, { role: { kind: "prefill", bootstrapPort: 8998 } });
    await router.add(b, { role: { kind: "decode" }, fenced: true });
    await router.fence(a);
    await router.open(a, 1);
    await router.open(b, 1);
    expect(double.asked).toEqual([`add ${a} prefill 8998`, `remove ${a}`, `add ${a} prefill 8998`, `add ${b} decode`]);
    await router.close();
  });

  it("names an engine that the router cannot reach", async () => {
    const dead = new Map([
      [a, "failed"],
      [b, "processing"],
    ] as const);
    await using double = await routerDouble({ clock, dead });
    const router = sglangRouter(double.url, { clock, addMsMax: 100 });
    await expect(router.add(a)).rejects.toThrow(/could not register http:\/\/127\.0\.0\.1:9001: nobody listens there/);
    await expect(router.add(b)).rejects.toMatchObject({ code: "engine.unavailable" });
    await router.close();
  });

  it("does not know what was never added", async () => {
    await using double = await routerDouble({ clock });
    const router = sglangRouter(double.url, { clock });
    for (const call of [router.fence(a), router.open(a, 1), router.remove(a), router.drain(a, 1_000)])
      await expect(call).rejects.toMatchObject({ code: "not_found" });
    await router.close();
  });

  it("drains by the engine's own word", async () => {
    let running = 2;
    const engine = createServer((_request, response) =>
      response.end(
        JSON.stringify({
          loads: [
            { num_running_reqs: running, num_waiting_reqs: 0 },
            { num_running_reqs: 0, num_waiting_reqs: running-- > 0 ? 1 : 0 },
          ],
        }),
      ),
    );
    await new Promise<void>((resolve) => engine.listen(0, "127.0.0.1", resolve));
    const address = engine.address();
    const url = `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
    await using double = await routerDouble({ clock });
    const router = sglangRouter(double.url, { clock });
    await router.add(url);
    await router.drain(url, 10_000);
    expect(running).toBe(-1);
    expect(double.rotation()).toEqual([]);
    expect((await router.stats()).workers.map(({ state }) => state)).toEqual(["draining"]);
    running = 1_000;
    await router.open(url, 1);
    await expect(router.drain(url, 50)).rejects.toMatchObject({ code: "call.deadline" });
    await router.close();
    await new Promise<void>((resolve) => engine.close(() => resolve()));
  });

  it("carries changes of one engine out in their order (F3)", async () => {
    await using double = await routerDouble({ clock, jobMs: 1 });
    const router = sglangRouter(double.url, { clock });
    const step = fc.constantFrom("fence", "open", "add", "add-fenced");
    await fc.assert(
      fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 5 }), async (steps) => {
        await router.add(a, { fenced: true });
        await Promise.all(
          steps.map((kind) => {
            if (kind === "fence") return router.fence(a);
            return kind === "open" ? router.open(a, 1) : router.add(a, { fenced: kind === "add-fenced" });
          }),
        );
        const last = steps.at(-1);
        expect(double.rotation()).toEqual(last === "open" || last === "add" ? [a] : []);
      }),
      { numRuns: 8 },
    );
    await router.close();
  });

  it("counts by families", () => {
    expect(countsOf('smg_router_requests_total{a="b c"} 4\nsmg_router_requests_total 1\nsmg_worker_retries_total{} 2\n')).toEqual({
      requests: 5,
      failures: 0,
      retries: 2,
    });
  });
});
