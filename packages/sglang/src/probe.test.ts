import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { capabilitiesOf, probeCapabilities, requireFeature } from "./capabilities.js";
import { discoverExternal } from "./external.js";
import { SglangDouble, type SglangDoubleOptions, tinyWeights, writeTinyCheckpoint } from "./testing/index.js";

const cleanups: (() => Promise<unknown>)[] = [];
afterEach(async () => {
  for (const cleanup of cleanups.splice(0).reverse()) await cleanup();
});

async function server(options: Partial<SglangDoubleOptions> = {}): Promise<SglangDouble> {
  const root = await mkdtemp(join(tmpdir(), "probe-"));
  const double = await SglangDouble.start({ modelPath: await writeTinyCheckpoint(root, tinyWeights(1)), ...options });
  cleanups.push(
    () => rm(root, { recursive: true }),
    () => double[Symbol.asyncDispose](),
  );
  return double;
}

describe("capabilities", () => {
  it.each([
    ["0.5.15", false],
    ["0.5.17", false],
    ["0.5.23", true],
  ] as const)("of %s", async (version, newer) => {
    const double = await server({ version });
    expect(await probeCapabilities(double.url)).toMatchObject({
      version,
      sessions: newer,
      flushWhileRetracted: newer,
      weightSpans: newer,
      contextLength: 512,
      role: { kind: "regular" },
    });
    // Nothing was changed by asking.
    expect(double.calls.filter((call) => call.startsWith("POST"))).toEqual([]);
    expect(double.sessionOpen).toBe(false);
  });

  it("parallel sizes, roles and switches are read", async () => {
    const double = await server({
      memorySaver: true,
      info: {
        tp_size: 4,
        pp_size: 2,
        ep_size: 4,
        nnodes: 2,
        enable_metrics: true,
        disaggregation_mode: "prefill",
        disaggregation_bootstrap_port: 9_001,
      },
    });
    expect(await probeCapabilities(double.url)).toMatchObject({
      tpSize: 4,
      ppSize: 2,
      epSize: 4,
      nodes: 2,
      metrics: true,
      memorySaver: true,
      role: { kind: "prefill", bootstrapPort: 9_001 },
    });
  });

  it("the context is told by the longest prompt where nothing else tells it", async () => {
    expect(await probeCapabilities((await server({ info: { context_length: null } })).url)).toMatchObject({ contextLength: 512 });
    expect(capabilitiesOf("http://e", { version: "0.5.15" }, {}, false).contextLength).toBeNull();
  });

  it("a missing feature names who has it", () => {
    const capabilities = capabilitiesOf("http://e", { version: "0.5.15", device: "cpu" }, {}, false);
    expect(() => requireFeature("http://e", capabilities, "sessions")).toThrow(/0\.5\.15.*0\.5\.23/);
    expect(() => requireFeature("http://e", capabilities, "memorySaver")).toThrow(/--enable-memory-saver/);
  });

  it("what is no SGLang server is said to be none", () => {
    expect(() => capabilitiesOf("http://e", { name: "nginx" }, {}, false)).toThrow(expect.objectContaining({ code: "unsupported" }));
  });
});

describe("external engines", () => {
  it("are found by address, in order", async () => {
    const [left, right] = [await server(), await server()];
    const found = await discoverExternal([left.url.slice("http://".length), `${right.url}/`]);
    expect(found.map(({ url }) => url)).toEqual([left.url, right.url]);
  });

  it("are refused with all mismatches at once", async () => {
    const [left, right, dead] = [
      await server(),
      await server({ version: "0.5.17", info: { dtype: "bfloat16", dp_size: 2 } }),
      await server(),
    ];
    dead.die("gone");
    const failure: unknown = await discoverExternal([left.url, right.url, dead.url, left.url], { wanted: { tpSize: 2 } }).catch(
      (error: unknown) => error,
    );
    expect(failure).toMatchObject({ code: "config.invalid" });
    const { issues } = (failure as { readonly details: { readonly issues: readonly string[] } }).details;
    expect(issues.join("\n")).toMatch(
      /named twice.*does not answer.*version differs: 0\.5\.15 at [^;]*; 0\.5\.17 at.*dtype differs.*dp_size 2.*tpSize 1, 2 is wanted/s,
    );
    await expect(discoverExternal(["no address:"])).rejects.toMatchObject({ code: "config.invalid" });
  });
});
