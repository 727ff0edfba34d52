import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type ErrorCode, SlimeError, silentLogger, sleep, systemClock } from "@slime/core";
import { readModelConfig } from "@slime/embedded";
import { HttpEngine } from "@slime/router";
import { HttpServerEngineAdapter, probeCapabilities } from "@slime/sglang";
import { type LethalStage, lethalCases, lethalRequest, rawCall } from "@slime/sglang/testing";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { realEnv } from "./real-env.js";
import { logFolder, type RealServer, startRealServer } from "./real-server.js";

const logs = logFolder();
const { models, sglang } = realEnv();
const model = models.tinyQwen3;

/** Everything of a server is gone this long after its cause, and its clients know. SGLang itself takes 5 s from the cause to its own end. */
const endMsMax = 20_000;
/** How long SGLang keeps an idle connection. A client that uses one in the moment it is closed loses its request. */
const idleMs = 5_000;

/** A start's longest, and what a test adds to it. */
const testMsMax = 240_000;

// What a GPU's memory saver is needed for cannot be had here; the double shows those rows.
const cases = lethalCases.filter(({ memorySaver }) => !memorySaver);
const dying = cases.filter(({ effect }) => effect(sglang) === "dies");
const surviving = cases.filter(({ effect }) => ["errs", "none"].includes(effect(sglang)));
/** Updates that would wait for a witness's request to end, unless it is held. */
const waiting = new Set(["an update from a group that was not joined", "weights of another shape from disk"]);
const hanging = cases.filter(({ effect }) => effect(sglang) === "hangs");

let scratch: string;
beforeAll(async () => {
  scratch = await mkdtemp(join(tmpdir(), "slime-real-deaths-"));
});
afterAll(() => rm(scratch, { recursive: true, force: true }));

/** Servers in the order they are asked for, two starting side by side: a start is one core's work for most of its time. */
class Servers {
  readonly #starts: Promise<RealServer>[] = [];
  readonly #count: number;
  #taken = 0;

  constructor(count: number) {
    this.#count = count;
  }

  next(): Promise<RealServer> {
    this.#taken++;
    this.prepare();
    return this.#starts[this.#taken - 1] ?? Promise.reject(new Error(`only ${this.#count} servers were planned`));
  }

  prepare(): void {
    while (this.#starts.length < Math.min(this.#count, this.#taken + 2)) {
      // SGLang's own limit on idle connections; our servers are started with a longer one.
      const start = startRealServer({ model, logs, env: { SGLANG_TIMEOUT_KEEP_ALIVE: String(idleMs / 1_000) } });
      start.catch(() => {}); // awaited by who takes it
      this.#starts.push(start);
    }
  }

  async end(): Promise<void> {
    for (const start of await Promise.allSettled(this.#starts)) if (start.status === "fulfilled") await start.value.kill();
  }
}

async function stageOf(server: RealServer): Promise<LethalStage> {
  const config = await readModelConfig(model);
  const adapter = new HttpServerEngineAdapter({
    url: server.url,
    capabilities: await probeCapabilities(server.url),
    vocabularySize: config.vocabSize,
    contextLength: config.positionsMax,
    transport: "disk",
    helper: null,
    scratch,
    clock: systemClock,
    log: silentLogger,
  });
  return {
    url: server.url,
    version: sglang,
    modelPath: model,
    vocabulary: config.vocabSize,
    longTokens: 2_000,
    silenceMs: 5_000,
    scratch: await mkdtemp(join(scratch, "stage-")),
    adapter,
  };
}

describe(`SGLang ${sglang}`, () => {
  const servers = new Servers(dying.length + 3);
  beforeAll(() => servers.prepare());
  afterAll(() => servers.end(), testMsMax);

  describe("lives on, however it is called through the adapter", () => {
    let server: RealServer;
    let stage: LethalStage;
    beforeAll(async () => {
      server = await servers.next();
      stage = await stageOf(server);
    }, testMsMax);
    afterAll(async () => {
      await stage?.adapter.close();
      await server?.kill();
    });

    it.each(cases.map((row) => [row.name, row] as const))("%s is refused", async (_name, { adapted, codes }) => {
      const failure: unknown = await adapted(stage).catch((error: unknown) => error);
      expect(SlimeError.isAny(failure) && codes.includes(failure.code as ErrorCode), String(failure)).toBe(true);
      await restored(stage.adapter);
    });

    it.each(surviving.map((row) => [row.name, row] as const))("%s, sent as it is, leaves it alive", async (_name, { raw }) => {
      await raw(stage);
      await restored(stage.adapter);
    });

    it("connections idle for as long as it keeps them are not used again", async () => {
      for (const waitMs of [idleMs - 10, idleMs, idleMs + 10]) {
        const results = await Promise.all([1, 2, 3].map(() => stage.adapter.generate(lethalRequest(), { timeoutMs: 30_000 })));
        expect(results.map(({ outputIds }) => outputIds.length)).toEqual([4, 4, 4]);
        await sleep(systemClock, waitMs);
      }
      await stage.adapter.load();
    });

    it("a client that leaves takes its request with it", async () => {
      const engine = new HttpEngine(server.url);
      const leaving = new AbortController();
      const flight = await fly(engine, leaving.signal);
      leaving.abort(new Error("left"));
      await expect(flight.done).rejects.toThrow("left");
      await eventually("nothing runs", async () => (await engine.load()).running === 0);
      await engine.close();
    });

    it("a stopped scheduler: facts are still told, health is not, and all goes on when it does", async () => {
      const scheduler = await server.child("sglang::scheduler");
      const engine = new HttpEngine(server.url);
      const flight = await fly(engine);
      process.kill(scheduler, "SIGSTOP");
      try {
        const progress = flight.tokens();
        // The old liveness route says 200 of a server that does nothing.
        expect((await rawCall(server.url, "/model_info", null)).status).toBe(200);
        await expect(stage.adapter.health(3_000)).rejects.toMatchObject({ code: "engine.unavailable" });
        expect(flight.tokens() - progress).toBeLessThanOrEqual(64);
        expect(flight.settled()).toBe(false);
      } finally {
        process.kill(scheduler, "SIGCONT");
      }
      expect((await flight.done).outputIds).toHaveLength(flightTokens);
      await stage.adapter.health(30_000);
      await engine.close();
    });

    it("SIGTERM lets what runs end, and then nothing of it is left", async () => {
      const engine = new HttpEngine(server.url);
      const flight = await fly(engine);
      process.kill(server.pid, "SIGTERM");
      expect((await flight.done).outputIds).toHaveLength(flightTokens);
      await server.exited;
      expect(await server.living()).toEqual([]);
      await engine.close();
    });
  });

  describe("ends, every client is told, and nothing of it is left", () => {
    /** Does what ends it and watches it end. @returns what its end is put down to. */
    const watched = async (server: RealServer, cause: () => Promise<unknown>): Promise<string> => {
      const engine = new HttpEngine(server.url);
      expect((await server.living()).length).toBeGreaterThanOrEqual(3);
      const flight = await fly(engine);
      const fromMs = systemClock.nowMs();
      const told = cause();
      const { reason } = await server.exited;
      expect(systemClock.nowMs() - fromMs).toBeLessThan(endMsMax);
      expect(await server.living()).toEqual([]);
      expect(await flight.done.catch((error: unknown) => error)).toMatchObject({ code: "engine.unavailable" });
      await expect(engine.load()).rejects.toMatchObject({ code: "engine.unavailable" });
      await told;
      await engine.close();
      return reason;
    };

    it.each(dying.map((row) => [row.name, row] as const))(
      "by %s",
      async (name, { raw }) => {
        await using server = await servers.next();
        const stage = await stageOf(server);
        const reason = await watched(server, async () => {
          if (waiting.has(name)) await rawCall(server.url, "/pause_generation", { mode: "in_place" });
          await raw(stage);
        });
        expect(reason).toMatch(/Error/);
        await stage.adapter.close();
      },
      testMsMax,
    );

    it(
      "by SIGKILL of its scheduler, while a call hangs",
      async () => {
        await using server = await servers.next();
        const stage = await stageOf(server);
        const reason = await watched(server, async () => {
          for (const { raw } of hanging) await raw(stage);
          process.kill(await server.child("sglang::scheduler"), "SIGKILL");
        });
        expect(reason).toContain("sglang::scheduler");
        await stage.adapter.close();
      },
      testMsMax,
    );

    it(
      "by SIGKILL of its detokenizer",
      async () => {
        await using server = await servers.next();
        const reason = await watched(server, async () => process.kill(await server.child("sglang::detokenizer"), "SIGKILL"));
        expect(reason).toContain("sglang::detokenizer");
      },
      testMsMax,
    );
  });
});

/** Back to an engine that runs the weights it began with and has nothing to do. */
async function restored(adapter: HttpServerEngineAdapter): Promise<void> {
  await adapter.resume();
  await adapter.abort({ all: true });
  await eventually("the engine is idle", async () => {
    const { running, waiting } = await adapter.load();
    return running + waiting === 0;
  });
  expect((await adapter.generate(lethalRequest(), { timeoutMs: 30_000 })).outputIds).toHaveLength(4);
}

/** Asks again and again for at most 20 s; each question is a round trip. */
async function eventually(what: string, holds: () => Promise<boolean>): Promise<void> {
  const untilMs = systemClock.nowMs() + 20_000;
  while (!(await holds())) if (systemClock.nowMs() > untilMs) throw new Error(`not within 20 s: ${what}`);
}

const flightTokens = 300;
let flights = 0;

interface Flight {
  readonly done: Promise<{ readonly outputIds: readonly number[] }>;
  readonly tokens: () => number;
  readonly settled: () => boolean;
}

/** A request of a few seconds that has had its first token. */
async function fly(engine: HttpEngine, signal?: AbortSignal): Promise<Flight> {
  let tokens = 0;
  let settled = false;
  let first: () => void = () => {};
  const begun = new Promise<void>((resolve) => {
    first = resolve;
  });
  const params = { temperature: 0, top_p: 1, top_k: -1, max_new_tokens: flightTokens, ignore_eos: true };
  const request = { rid: `flight-${flights++}`, input_ids: [5, 6, 7], sampling_params: params, return_logprob: true };
  const onTokens = (count: number) => {
    tokens = count;
    first();
  };
  const done = engine.generate(request, { timeoutMs: 80_000, onTokens, ...(signal === undefined ? {} : { signal }) });
  const end = () => {
    settled = true;
  };
  done.then(end, end);
  await Promise.race([begun, done]);
  return { done, tokens: () => tokens, settled: () => settled };
}
