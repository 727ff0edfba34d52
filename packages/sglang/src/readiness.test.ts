import { appendFileSync, statSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { virtualClock } from "@slime/core/testing";
import { temporaryDirectory } from "@slime/platform/testing";
import { describe, expect, it } from "vitest";
import type { ProbeOutcome } from "./http-probe.js";
import { awaitReady } from "./readiness.js";
import { followLog, progressTeller, serverPhase } from "./server-log.js";

describe("what a line of the log says", () => {
  it.each([
    ["[2026-11-22 10:00:00 TP0] Init torch distributed begin.", "joining the process group"],
    ["[2026-11-22 10:00:01 TP0] Load weight begin. avail mem=78.58 GB", "loading weights"],
    ["Loading safetensors checkpoint shards:  43% Completed | 3/7 [00:01<00:01,  2.5it/s]", "loading weights 3/7"],
    ["Multi-thread loading shards:  43% Completed | 3/7 [00:01<00:01]", "loading weights 3/7"],
    ["[2026-11-22 10:00:03 TP0] Load weight end. type=Qwen3ForCausalLM, dtype=torch.bfloat16", "weights loaded"],
    ["[2026-11-22 10:00:04 TP0] KV Cache is allocated. dtype: torch.bfloat16, #tokens: 30000", "cache allocated"],
    ["Capturing batches (bs=4 avail_mem=60.1 GB):  40%|####      | 2/5 [00:01<00:02]", "capturing graphs 2/5"],
    ["[2026-11-22 10:00:05 TP0] Capture decode CUDA graph begin. This can take up to several minutes.", "capturing graphs"],
    ["INFO:     Application startup complete.", "warming up"],
    ["[2026-11-22 10:00:09] The server is fired up and ready to roll!", "ready"],
    ["[2026-11-22 10:00:09] something else 3/7", null],
  ])("%s", (line, phase) => expect(serverPhase(line)).toBe(phase));

  it("tells going on from repeating itself", () => {
    const goesOn = progressTeller();
    const said = [
      "[2026-11-22 10:00:00] waiting for rank 1",
      "[2026-11-22 10:00:01] waiting for rank 1",
      '[2026-11-22 10:00:02] INFO: 127.0.0.1:4 - "GET /health_generate HTTP/1.1" 503 Service Unavailable',
      "[2026-11-22 10:00:03] rank 1 is here",
      "[2026-11-22 10:00:04] waiting for rank 1",
    ];
    expect(said.map(goesOn)).toEqual([true, false, false, true, false]);
  });
});

describe("following a log", () => {
  it("takes whole lines as they come, from where it began, and knows a bar's carriage returns", async () => {
    await using root = await temporaryDirectory();
    const path = join(root.path, "log");
    const early = followLog(path, 0);
    expect(await early.read()).toEqual([]);
    writeFileSync(path, "of an earlier life\n");
    const log = followLog(path, statSync(path).size);
    expect(await log.read()).toEqual([]);
    appendFileSync(path, "1/3\r2/3\rü");
    expect(await log.read()).toEqual(["1/3", "2/3"]);
    const rest = Buffer.from("ber\n\n日本");
    appendFileSync(path, rest.subarray(0, rest.length - 2)); // in the middle of a character
    expect(await log.read()).toEqual(["über"]);
    appendFileSync(path, Buffer.concat([rest.subarray(rest.length - 2), Buffer.from("\n")]));
    expect(await log.read()).toEqual(["日本"]);
    expect(await early.read()).toEqual(["of an earlier life", "1/3", "2/3", "über", "日本"]);
  });
});

describe("the wait for a server", () => {
  const start = (options: { readonly silenceMsMax: number }) => {
    const clock = virtualClock();
    const state = { lines: [] as string[], outcome: { kind: "refused", reason: "ECONNREFUSED" } as ProbeOutcome };
    const phases: string[] = [];
    const controller = new AbortController();
    let end: unknown = "waiting";
    const done = awaitReady({
      what: "the server",
      clock,
      signal: controller.signal,
      follower: { read: async () => state.lines.splice(0) },
      probe: async () => state.outcome,
      onPhase: (phase) => void phases.push(phase),
      ...options,
    }).then(
      () => (end = "ready"),
      (error: unknown) => (end = error),
    );
    return { clock, state, phases, controller, end: () => end, done };
  };

  it("ends with a 200 and nothing less (R1)", async () => {
    const { clock, state, phases, end } = start({ silenceMsMax: 60_000 });
    state.lines.push("[x] Load weight begin.", "The server is fired up and ready to roll!");
    state.outcome = { kind: "answered", status: 503 };
    await clock.run(5_000);
    expect(end()).toBe("waiting");
    expect(phases).toEqual(["starting", "loading weights"]);
    state.outcome = { kind: "answered", status: 200 };
    await clock.run(1_000);
    expect(end()).toBe("ready");
    expect(phases.at(-1)).toBe("ready");
    expect(clock.pending()).toBe(0);
  });

  it("lasts as long as it goes on, and ends once it is silent (R2)", async () => {
    const { clock, state, end } = start({ silenceMsMax: 10_000 });
    for (let shard = 1; shard <= 20; shard++) {
      state.lines.push(`Loading safetensors checkpoint shards: 1% Completed | ${shard}/20 [x]`);
      await clock.run(9_000);
    }
    expect(end()).toBe("waiting");
    state.lines.push("Loading safetensors checkpoint shards: 1% Completed | 20/20 [x]");
    state.outcome = { kind: "answered", status: 503 };
    await clock.run(9_000);
    expect(end()).toBe("waiting"); // the port's first answer was progress
    await clock.run(2_000);
    expect(end()).toMatchObject({ code: "stalled", message: expect.stringContaining("while loading weights 20/20 (its port: 503)") });
    expect(clock.pending()).toBe(0);
  });

  it("ends with its signal", async () => {
    const { clock, controller, end } = start({ silenceMsMax: 10_000 });
    await clock.run(1_000);
    controller.abort("enough");
    await clock.run(1_000);
    expect(end()).toBe("enough");
  });
});
