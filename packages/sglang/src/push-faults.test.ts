import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Logger, silentLogger, systemClock } from "@slime/core";
import { keptLog } from "@slime/core/testing";
import { afterEach, describe, expect, it } from "vitest";
import { probeCapabilities } from "./capabilities.js";
import { type AdapterLimits, HttpServerEngineAdapter } from "./http-server-engine-adapter.js";
import {
  doubleHelper,
  doubleVocabulary,
  lethalRequest,
  SglangDouble,
  type SglangDoubleOptions,
  tinyWeights,
  writeTinyCheckpoint,
  writeTinyExport,
} from "./testing/index.js";
import type { WeightHelper } from "./weight-helper-port.js";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function stage(
  options: Partial<SglangDoubleOptions> & {
    readonly helper?: WeightHelper;
    readonly limits?: Partial<AdapterLimits>;
    readonly transport?: "tensor" | "disk";
    readonly log?: Logger;
  } = {},
) {
  const { helper = doubleHelper(), limits = {}, transport = "tensor", log = silentLogger, ...rest } = options;
  const root = await mkdtemp(join(tmpdir(), "push-"));
  const double = await SglangDouble.start({ modelPath: await writeTinyCheckpoint(join(root, "model"), tinyWeights(1)), ...rest });
  const adapter = new HttpServerEngineAdapter({
    url: double.url,
    capabilities: await probeCapabilities(double.url),
    vocabularySize: doubleVocabulary,
    contextLength: double.contextLength,
    transport,
    helper,
    scratch: join(root, "scratch"),
    clock: systemClock,
    log,
    limits,
  });
  cleanups.push(
    () => rm(root, { recursive: true }),
    () => double[Symbol.asyncDispose](),
    () => adapter.close(),
  );
  const source = await writeTinyExport(join(root, "weights.bin"), tinyWeights(2));
  return { double, adapter, source, root };
}

/** Buckets so small that this model needs several. */
const inParts = { bucketBytesMax: 1_024 };
const soon = { updateTimeoutMs: 80, controlTimeoutMs: 80 };

describe("a push that goes wrong leaves nobody waiting", () => {
  for (const transport of ["tensor", "disk"] as const) {
    it(`the engine dies within it (${transport})`, async () => {
      const { double, adapter, source } = await stage({ transport });
      await adapter.pause("in_place");
      double.freeze();
      const both = Promise.allSettled([
        adapter.updateWeights({ version: 1, source }),
        adapter.generate(lethalRequest(), { timeoutMs: 20_000 }),
      ]);
      const asked = () => double.calls.some((call) => call.startsWith("POST /update_weights_from"));
      while (!asked()) await new Promise((resolve) => setImmediate(resolve));
      double.die("killed");
      for (const outcome of await both) expect(outcome).toMatchObject({ status: "rejected", reason: { code: "engine.unavailable" } });
      expect(adapter.state).toMatchObject({ kind: "ended" });
      await expect(adapter.resume()).rejects.toMatchObject({
        code: "engine.unavailable",
        message: expect.stringContaining("restart it") as string,
      });
    });

    it(`the engine hangs within it (${transport})`, async () => {
      const { double, adapter, source } = await stage({ transport, limits: soon });
      await adapter.pause("retract");
      double.freeze();
      await expect(adapter.updateWeights({ version: 1, source })).rejects.toMatchObject({ code: "engine.unavailable" });
      expect(adapter.state).toMatchObject({ kind: "ended", reason: "no answer to update" });
      await expect(adapter.generate(lethalRequest(), { timeoutMs: 1_000 })).rejects.toMatchObject({ code: "engine.unavailable" });
    });
  }

  it("the engine hangs in a session of 0.5.23", async () => {
    const { double, adapter, source } = await stage({ version: "0.5.23", limits: soon });
    await adapter.pause("abort");
    double.freeze();
    await expect(adapter.updateWeights({ version: 1, source })).rejects.toMatchObject({ code: "engine.unavailable" });
    expect(double.calls.filter((call) => call.includes("weight")).at(-1)).toBe("POST /begin_weight_update");
  });

  it("a helper that fails between two parts leaves torn weights: nothing is served until a whole push", async () => {
    let fail = true;
    const whole = doubleHelper();
    const helper: WeightHelper = {
      ...whole,
      async push(request) {
        if (!fail) return whole.push(request);
        await whole.push({ ...request, buckets: request.buckets.slice(0, 1), weightVersion: "default" });
        return { kind: "failed", reason: "out of memory", posted: 1 };
      },
    };
    for (const version of ["0.5.15", "0.5.23"] as const) {
      const { double, adapter, source } = await stage({ version, helper, limits: inParts });
      fail = true;
      await adapter.pause("abort");
      await expect(adapter.updateWeights({ version: 1, source })).rejects.toMatchObject({
        code: "weights.mismatch",
        message: expect.stringContaining("out of memory") as string,
      });
      expect(double.sessionOpen).toBe(false);
      await expect(adapter.resume()).rejects.toMatchObject({ code: "engine.state", details: { wanted: "a whole update of the weights" } });
      await expect(adapter.generate(lethalRequest(), { timeoutMs: 1_000 })).rejects.toMatchObject({ code: "engine.state" });
      fail = false;
      await adapter.updateWeights({ version: 1, source });
      await adapter.resume();
      expect(await adapter.generate(lethalRequest(), { timeoutMs: 5_000 })).toMatchObject({ weightVersion: "1" });
    }
  });

  it("no part of a push bears its version but the last", async () => {
    const versions: unknown[] = [];
    const { double, adapter, source } = await stage({ limits: inParts });
    await adapter.pause("abort");
    const push = adapter.updateWeights({ version: 7, source });
    while (double.weightVersion !== "7") {
      versions.push(double.weightVersion);
      await new Promise((resolve) => setImmediate(resolve));
    }
    await push;
    expect(double.calls.filter((call) => call === "POST /update_weights_from_tensor").length).toBeGreaterThan(1);
    expect(new Set(versions)).toEqual(new Set(["default"]));
  });

  it("weights of another model are refused before anything is sent", async () => {
    const { double, adapter, source } = await stage();
    const { tensors } = source;
    const renamed = tensors.map((tensor, i) => (i === 0 ? { ...tensor, name: "model.nonsense" } : tensor));
    const turned = tensors.map((tensor, i) => (i === 0 ? { ...tensor, shape: [...tensor.shape].reverse() } : tensor));
    for (const [given, words] of [
      [renamed, /no model\.nonsense.*embed_tokens\.weight is missing/],
      [turned, /\[8, 64\], the model's \[64, 8\]/],
      [tensors.slice(1), /embed_tokens\.weight is missing/],
    ] as const)
      await expect(adapter.updateWeights({ version: 1, source: { ...source, tensors: given } })).rejects.toMatchObject({
        code: "weights.mismatch",
        message: expect.stringMatching(words) as string,
      });
    expect(double.calls.some((call) => call.includes("update_weights"))).toBe(false);
    expect(adapter.state).toMatchObject({ kind: "live", busy: null });
  });

  it("weights that a group broadcasts come in a session where there are any; a refusal may have torn them", async () => {
    for (const version of ["0.5.15", "0.5.23"] as const) {
      const { adapter, double } = await stage({ version });
      const group = { name: "g", masterAddress: "127.0.0.1", masterPort: 1, rankOffset: 1, worldSize: 2, backend: "gloo" } as const;
      const tensors = [{ name: "model.norm.weight", dtype: "float32", shape: [8] }];
      await adapter.joinUpdateGroup(group);
      await adapter.pause("retract");
      await adapter.updateFromGroup("g", tensors, 4);
      expect([double.weightVersion, double.sessionOpen]).toEqual(["4", false]);
      await adapter.leaveUpdateGroup("g");
      await expect(adapter.updateFromGroup("g", tensors, 5)).rejects.toMatchObject({ code: "engine.state" });
      if (version === "0.5.15") continue;
      await adapter.joinUpdateGroup(group);
      double.groups.clear();
      await expect(adapter.updateFromGroup("g", tensors, 5)).rejects.toMatchObject({ code: "weights.mismatch" });
      expect(adapter.state).toMatchObject({ weights: "torn" });
      expect(double.sessionOpen).toBe(false);
    }
  });

  it("prefixes of old weights that a server keeps are warned of, once", async () => {
    for (const [mode, disable_radix_cache, warnings] of [
      ["retract", false, 1],
      ["retract", true, 0],
      ["abort", false, 0],
    ] as const) {
      const { log, lines } = keptLog();
      const { adapter, source } = await stage({ info: { disable_radix_cache }, log });
      await adapter.pause(mode);
      for (const version of [1, 2]) await adapter.updateWeights({ version, source });
      expect(lines.filter(({ event }) => event === "engine.old_prefixes")).toHaveLength(warnings);
    }
  });

  it("a newer server flushes while a pause by retract holds requests, an older one does not", async () => {
    for (const version of ["0.5.15", "0.5.23"] as const) {
      const { adapter } = await stage({ version, stepMs: 5 });
      const gone = new AbortController();
      let begin: () => void = () => {};
      const begun = new Promise<void>((resolve) => {
        begin = resolve;
      });
      const options = { timeoutMs: 10_000, signal: gone.signal, onTokens: () => begin() };
      const flight = adapter.generate(lethalRequest({ max_new_tokens: 200 }), options).catch(() => {});
      await begun;
      await adapter.pause("retract");
      if (version === "0.5.23") await adapter.flush();
      else await expect(adapter.flush()).rejects.toMatchObject({ code: "engine.refused" });
      await adapter.resume();
      gone.abort();
      await flight;
    }
  });

  it("what is missing is named", async () => {
    const { adapter, double } = await stage({ info: { dp_size: 2 } });
    await expect(adapter.updateWeights({ version: 1, source: { kind: "directory", path: double.modelPath } })).rejects.toMatchObject({
      code: "unsupported",
      message: expect.stringContaining("--enable-dp-attention") as string,
    });
    await expect(adapter.release()).rejects.toMatchObject({
      code: "unsupported",
      message: expect.stringContaining("--enable-memory-saver") as string,
    });
    adapter.end("exit code -9");
    await expect(adapter.load()).rejects.toMatchObject({ code: "engine.unavailable" });
  });
});
