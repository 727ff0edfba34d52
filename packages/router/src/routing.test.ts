import type { RouterPolicy } from "@slime/backend";
import { SlimeError } from "@slime/core";
import { afterEach, describe, expect, it } from "vitest";
import { httpRouter } from "./router-client.js";
import { type RunningRouter, startRouter } from "./start.js";
import { answerJson, type ScriptedEngine, scriptedEngine } from "./testing/index.js";

const open: AsyncDisposable[] = [];
afterEach(async () => {
  for (const thing of open.splice(0).reverse()) await thing[Symbol.asyncDispose]();
});

const at = <T>(list: readonly T[], i: number): T => {
  const item = list[i];
  if (item === undefined) throw new RangeError(`nothing at ${i}`);
  return item;
};
const post = (url: string, body: unknown, headers: Record<string, string> = {}) =>
  fetch(url, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    headers: { "content-type": "application/json", ...headers },
  });
const engineOf = async (reply: Response): Promise<string | null> => {
  await reply.arrayBuffer();
  return reply.headers.get("x-slime-engine");
};

type Roles = readonly ("regular" | "prefill" | "decode")[];

/** A router with an engine per role, admitted. Probes run when the test asks for one. */
async function routed(
  roles: Roles,
  options: Parameters<typeof startRouter>[0] = {},
): Promise<{ readonly router: RunningRouter; readonly engines: readonly ScriptedEngine[] }> {
  const router = await startRouter({
    policy: "round_robin",
    ...options,
    limits: { probeEveryMs: 600_000, closeMs: 50, waitMs: 200, ...options.limits },
  });
  open.push(router);
  const engines: ScriptedEngine[] = [];
  const client = httpRouter(router.url);
  for (const kind of roles) {
    const engine = await scriptedEngine();
    engines.push(engine);
    open.push(engine);
    await client.add(engine.url, { role: kind === "prefill" ? { kind, bootstrapPort: 8_998 } : { kind } });
  }
  await client.close();
  return { router, engines };
}

describe("policies, through the front", () => {
  const regular: Roles = ["regular", "regular", "regular"];

  it.each(["X-SMG-Routing-Key", "x-smg-routing-key"])("consistent_hashing keeps a key at one engine (%s)", async (header) => {
    const { router } = await routed(regular, { policy: "consistent_hashing" });
    const seen = new Map<string, Set<string | null>>();
    for (let i = 0; i < 16; i++) {
      const key = `session-${i % 8}`;
      const engine = await engineOf(await post(`${router.url}/generate`, {}, { [header]: key }));
      seen.set(key, (seen.get(key) ?? new Set()).add(engine));
    }
    for (const engines of seen.values()) expect(engines.size).toBe(1);
    expect(new Set([...seen.values()].flatMap((one) => [...one])).size).toBeGreaterThan(1);
  });

  it.each([
    [
      "input_ids",
      (i: number) => ({ rid: `r${i}`, sampling_params: { temperature: 1 }, input_ids: Array.from({ length: 200 }, (_, k) => 7 * k) }),
    ],
    ["text", (i: number) => ({ text: "one beginning for all ".repeat(20), rid: `r${i}` })],
    ["messages", (i: number) => ({ model: "m", messages: [{ role: "user", content: "x".repeat(400) }], user: `u${i}` })],
  ] as const)("cache_aware keeps one prompt at one engine (%s)", async (_field, body) => {
    const { router } = await routed(regular, { policy: "cache_aware" });
    const first = await engineOf(await post(`${router.url}/generate`, body(0)));
    for (let i = 1; i < 6; i++) expect(await engineOf(await post(`${router.url}/generate`, body(i)))).toBe(first);
  });

  it("cache_aware's thresholds can be set: with none, load decides", async () => {
    const { router, engines } = await routed(regular, { policy: "cache_aware", cache: { balanceAbsolute: 0, balanceRelative: 1 } });
    const answers: (() => void)[] = [];
    for (const engine of engines) engine.script = (_request, response) => void answers.push(() => answerJson(response, {}));
    const replies = engines.map(() => post(`${router.url}/generate`, { text: "one prompt for all" }));
    await Promise.all(engines.map((engine) => engine.saw(1)));
    for (const answer of answers) answer();
    expect(new Set(await Promise.all(replies.map(async (reply) => engineOf(await reply)))).size).toBe(3);
  });

  it.each(["round_robin", "random", "least_in_flight", "power_of_two", "consistent_hashing", "cache_aware"] as RouterPolicy[])(
    "%s serves bodies of any kind",
    async (policy) => {
      const { router } = await routed(["regular"], { policy });
      for (const body of ["", "{}", "[1]", "not json", '{"text":', '{"input_ids":[1,2]}'])
        expect((await post(`${router.url}/generate`, body)).status).toBe(200);
    },
  );
});

describe("prefill and decode", () => {
  /** Both halves wait for each other by room, as SGLang's do: the prefill engine answers when its cache was fetched. */
  function paired(prefill: ScriptedEngine, decode: ScriptedEngine): void {
    const rooms = new Map<string, () => void>();
    const meet = (room: unknown, then: () => void) => {
      const other = rooms.get(String(room));
      if (other === undefined) return void rooms.set(String(room), then);
      other();
      then();
    };
    prefill.script = ({ body }, response) =>
      meet((JSON.parse(body.toString()) as Record<string, unknown>)["bootstrap_room"], () => answerJson(response, { from: "prefill" }));
    decode.script = ({ body }, response) =>
      meet((JSON.parse(body.toString()) as Record<string, unknown>)["bootstrap_room"], () => answerJson(response, { from: "decode" }));
  }

  it("answer together: one body with the same three fields for both, the decode engine's reply", async () => {
    const { router, engines } = await routed(["prefill", "decode"]);
    const [prefill, decode] = [at(engines, 0), at(engines, 1)];
    paired(prefill, decode);
    const body = '{ "input_ids":[1, 2],"custom_x":1.50}';
    const reply = await post(`${router.url}/generate?x=1`, body);
    expect(await reply.json()).toEqual({ from: "decode" });
    expect(reply.headers.get("x-slime-engine")).toBe(decode.url);
    const [one, other] = [at(prefill.seen, 0), at(decode.seen, 0)];
    expect(one.body.equals(other.body)).toBe(true);
    expect(other.path).toBe("/generate?x=1");
    expect(one.body.toString()).toMatch(
      /^\{"bootstrap_host":"127\.0\.0\.1","bootstrap_port":8998,"bootstrap_room":\d+, "input_ids":\[1, 2\],"custom_x":1\.50\}$/,
    );
    await post(`${router.url}/v1/completions`, { prompt: ["a", "b"] });
    expect(JSON.parse(at(decode.seen, 1).body.toString())).toMatchObject({ bootstrap_port: [8_998, 8_998] });
  });

  it("a prefill engine's refusal is the answer, and the decode engine is let go", async () => {
    const { router, engines } = await routed(["prefill", "decode"]);
    const decode = at(engines, 1);
    const gone = new Promise<void>((resolve) => (decode.script = (_request, response) => response.once("close", resolve)));
    at(engines, 0).script = (_request, response) => answerJson(response, { error: { message: "too long" } }, 400);
    const reply = await post(`${router.url}/generate`, {});
    expect(reply.status).toBe(400);
    expect(await reply.json()).toEqual({ error: { message: "too long" } });
    expect(reply.headers.get("x-slime-engine")).toBe(at(engines, 0).url);
    await gone;
    expect(router.dispatcher.fleet.get(at(router.dispatcher.fleet.workers, 1).id)).toMatchObject({ broken: 0, errors: 0, inFlight: 0 });
  });

  it("goes to another pair when either half breaks before the first byte", async () => {
    const { router, engines } = await routed(["prefill", "prefill", "decode", "decode"]);
    const [p1, p2, d1, d2] = [at(engines, 0), at(engines, 1), at(engines, 2), at(engines, 3)];
    p1.script = (_request, response) => response.socket?.resetAndDestroy();
    for (let i = 0; i < 3; i++) expect((await post(`${router.url}/generate`, {})).status).toBe(200);
    p1.script = p2.script;
    d1.script = (_request, response) => answerJson(response, {}, 503);
    for (let i = 0; i < 3; i++) expect(await engineOf(await post(`${router.url}/generate`, {}))).toBe(d2.url);
    for (const { inFlight } of router.dispatcher.fleet.workers) expect(inFlight).toBe(0);
  });

  it("a stream whose prefill engine dies ends in an error event", async () => {
    const { router, engines } = await routed(["prefill", "decode"]);
    let breakPrefill: () => void = () => {};
    at(engines, 0).script = (_request, response) => void (breakPrefill = () => response.socket?.resetAndDestroy());
    at(engines, 1).script = (_request, response) => {
      response.writeHead(200, { "content-type": "text/event-stream" });
      response.write('data: {"text":"a"}\n\n');
    };
    const reply = await post(`${router.url}/generate`, {});
    await at(engines, 0).saw(1);
    breakPrefill();
    expect(await reply.text()).toMatch(/^data: \{"text":"a"\}\n\ndata: \{"error":\{.*\}\}\n\n$/);
  });

  it("refuses what no pair can answer, waits for a whole pair, and takes other routes anywhere", async () => {
    const { router, engines } = await routed(["prefill", "decode"]);
    for (const body of ["", "[1]", "text"]) expect((await post(`${router.url}/generate`, body)).status).toBe(400);
    expect((await fetch(`${router.url}/model_info`)).status).toBe(200);
    expect((await fetch(`${router.url}/readiness`)).status).toBe(200);
    await router.dispatcher.fence(at(router.dispatcher.fleet.workers, 0).id);
    expect((await fetch(`${router.url}/readiness`)).status).toBe(503);
    expect((await post(`${router.url}/generate`, {})).status).toBe(503);
    expect((await fetch(`${router.url}/model_info`)).status).toBe(200);
    expect(engines.map(({ seen }) => seen.length)).toEqual([0, 0]);
  });

  it("F5: halves of unlike weights are no pair", async () => {
    const { router, engines } = await routed(["prefill", "decode", "decode"]);
    const driven = httpRouter(router.url);
    for (const [i, version] of [2, 1, 2].entries()) await driven.open(at(engines, i).url, version);
    for (let i = 0; i < 4; i++) {
      const reply = await post(`${router.url}/generate`, {});
      expect(reply.headers.get("x-slime-weight-version")).toBe("2");
      expect(await engineOf(reply)).toBe(at(engines, 2).url);
    }
    await driven.fence(at(engines, 2).url);
    expect((await post(`${router.url}/generate`, {})).status).toBe(503);
    await driven.close();
  });

  it("are registered with their roles, which a second registration changes", async () => {
    const { router, engines } = await routed(["prefill", "decode", "regular"]);
    const list = async () => (await (await fetch(`${router.url}/workers`)).json()) as Record<string, unknown>;
    expect(await list()).toMatchObject({
      workers: [{ worker_type: "prefill", bootstrap_port: 8_998 }, { worker_type: "decode" }, { worker_type: "regular" }],
      stats: { prefill_count: 1, decode_count: 1, regular_count: 1 },
    });
    const { url } = at(engines, 0);
    await post(`${router.url}/workers`, { url });
    await post(`${router.url}/workers`, { url, worker_type: "prefill", bootstrap_port: 9_001 });
    expect(await list()).toMatchObject({ workers: [{ worker_type: "prefill", bootstrap_port: 9_001 }, {}, {}], total: 3 });
    expect(await (await fetch(`${router.url}/metrics`)).text()).toContain('smg_worker_pool_size{worker_type="prefill"} 1');
  });
});

describe("calls that go to every engine", () => {
  const two: Roles = ["regular", "regular"];

  it("are answered 200 when all engines agree, with each one's answer otherwise", async () => {
    const { router, engines } = await routed(two, { limits: { fanOutMs: 200, fanOutBytesMax: 1_000 } });
    for (const path of ["/abort_request", "/pause_generation", "/continue_generation", "/flush_cache", "/update_weight_version"])
      expect(await (await post(`${router.url}${path}`, {})).json()).toMatchObject({
        status: "ok",
        workers: [{ status: 200 }, { status: 200 }],
      });
    expect(await (await fetch(`${router.url}/flush_cache?timeout=2`)).json()).toMatchObject({ workers_flushed: 2, total_workers: 2 });
    expect(at(at(engines, 0).seen, 5).path).toBe("/flush_cache?timeout=2");
    expect((await fetch(`${router.url}/pause_generation`)).status).toBe(405);
    at(engines, 1).script = () => {};
    const late = await post(`${router.url}/abort_request`, {});
    expect(late.status).toBe(502);
    expect(await late.json()).toMatchObject({
      workers: [{ status: 200 }, { status: null, body: expect.stringContaining("fanOutMs") as string }],
    });
    at(engines, 1).script = (_request, response) => response.end("x".repeat(1_001));
    expect(await (await post(`${router.url}/abort_request`, {})).json()).toMatchObject({
      workers: [{ status: 200 }, { status: null, body: expect.stringContaining("fanOutBytesMax") as string }],
    });
    at(engines, 1).script = (_request, response) => answerJson(response, {});
    expect((await post(`${router.url}/abort_request`, {})).status).toBe(200);
    await at(engines, 1).kill();
    expect(await (await post(`${router.url}/abort_request`, {})).json()).toMatchObject({ workers: [{ status: 200 }, { status: null }] });
  });

  it("an engine that is out has no longer than a probe has", async () => {
    const { router, engines } = await routed(two, { limits: { fanOutMs: 600_000, probeTimeoutMs: 500, stallMs: 0 } });
    at(engines, 1).script = () => {};
    at(engines, 1).health = null;
    await router.dispatcher.probe(at(router.dispatcher.fleet.workers, 1).id);
    expect(await (await post(`${router.url}/abort_request`, {})).json()).toMatchObject({
      workers: [{ status: 200 }, { status: null, body: expect.stringContaining("probeTimeoutMs") as string }],
    });
  });

  it("a pause through the router stops the probes until generation continues", async () => {
    const { router, engines } = await routed(two);
    await post(`${router.url}/pause_generation`, {});
    for (const engine of engines) engine.health = 503;
    for (const { id } of router.dispatcher.fleet.workers) await router.dispatcher.probe(id);
    expect(router.dispatcher.fleet.able).toBe(2);
    expect(await (await fetch(`${router.url}/workers`)).json()).toMatchObject({ workers: [{ paused: true }, { paused: true }] });
    await post(`${router.url}/continue_generation`, {});
    for (const { id } of router.dispatcher.fleet.workers) await router.dispatcher.probe(id);
    expect(router.dispatcher.fleet.able).toBe(0);
  });

  it("lists and sums are over the fleet", async () => {
    const { router, engines } = await routed(two);
    for (const engine of engines) {
      engine.script = ({ path }, response) => {
        if (path.startsWith("/v1/loads")) return answerJson(response, { loads: [{ dp_rank: 0, num_running_reqs: 3 }] });
        if (path === "/server_info") return answerJson(response, { version: "0.5.15" });
        if (path === "/metrics")
          return void response.end('# HELP sglang:x X.\n# TYPE sglang:x gauge\nsglang:x{tp="0"} 1\nsglang:y 2 17\nbad\n');
        answerJson(response, {});
      };
    }
    const [a, b] = [at(engines, 0).url, at(engines, 1).url];
    expect(await (await fetch(`${router.url}/v1/loads?include=core`)).json()).toEqual({
      loads: [
        { worker: a, dp_rank: 0, num_running_reqs: 3 },
        { worker: b, dp_rank: 0, num_running_reqs: 3 },
      ],
      failed: [],
    });
    expect(await (await fetch(`${router.url}/get_server_info`)).json()).toMatchObject({
      router_manager: true,
      workers_count: 2,
      workers: [{ worker: a, info: { version: "0.5.15" } }, { worker: b }],
    });
    expect(await (await fetch(`${router.url}/engine_metrics`)).text()).toBe(
      [
        "# HELP sglang_x X.",
        "# TYPE sglang_x gauge",
        `sglang_x{worker_addr="${a}",tp="0"} 1`,
        `sglang_x{worker_addr="${b}",tp="0"} 1`,
        `sglang_y{worker_addr="${a}"} 2 17`,
        `sglang_y{worker_addr="${b}"} 2 17`,
        "",
      ].join("\n"),
    );
    expect(await (await fetch(`${router.url}/server_info`)).json()).toEqual({ version: "0.5.15" });
  });

  it("what would change one engine's weights or memory is refused", async () => {
    const { router, engines } = await routed(two);
    for (const path of [
      "/update_weights_from_disk",
      "/release_memory_occupation",
      "/init_weights_update_group",
      "/begin_weight_update",
      "/%75pdate_weights_from_disk",
    ])
      expect((await post(`${router.url}${path}`, {})).status).toBe(404);
    expect(engines.map(({ seen }) => seen.length)).toEqual([0, 0]);
  });
});

it("an engine's true load is told while requests are in flight", async () => {
  const { router, engines } = await routed(["regular"]);
  const answers: (() => void)[] = [];
  at(engines, 0).script = (_request, response) => void answers.push(() => answerJson(response, {}));
  const replies = [1, 2, 3].map(() => post(`${router.url}/generate`, {}));
  await at(engines, 0).saw(3);
  expect(await (await fetch(`${router.url}/get_loads`)).json()).toEqual({ workers: [{ worker: at(engines, 0).url, load: 3 }] });
  expect(await (await fetch(`${router.url}/metrics`)).text()).toContain(`smg_worker_requests_active{worker="${at(engines, 0).url}"} 3`);
  for (const answer of answers) answer();
  await Promise.all(replies);
  expect(await (await fetch(`${router.url}/get_loads`)).json()).toMatchObject({ workers: [{ load: 0 }] });
  const text = await (await fetch(`${router.url}/metrics`)).text();
  expect(text).toContain('smg_router_upstream_responses_total{status="2xx"} 3');
  // Prometheus' text format: each name described once, before its samples.
  const names = [...text.matchAll(/^# TYPE (\S+) (?:counter|gauge)$/gm)].map(([, name]) => name);
  expect(new Set(names).size).toBe(names.length);
  for (const line of text.trimEnd().split("\n")) expect(line).toMatch(/^(?:# (?:HELP|TYPE) \S+ .+|[a-z_]+(?:\{[a-z_]+="[^"]*"\})? \d+)$/);
});

it("httpRouter refuses what the router refuses", async () => {
  const { router } = await routed([]);
  const driven = httpRouter(router.url);
  await expect(driven.add("http://127.0.0.1:1", { role: { kind: "prefill", bootstrapPort: 0 } })).rejects.toSatisfy((error) =>
    SlimeError.is(error, "engine.refused"),
  );
  await driven.close();
});
