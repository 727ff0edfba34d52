import { describe, expect, it } from "vitest";
import { causeOfDeath, type StartedAs, startFailure } from "./server-failure.js";

const server: StartedAs = { python: "/opt/py", modelPath: "/models/x", port: 30_000, logFile: "/logs/x.log" };

describe("what ended a server", () => {
  it.each([
    [
      "/opt/py: Error while finding module specification for 'sglang.launch_server' (ModuleNotFoundError: No module named 'sglang')",
      "config.invalid",
      /\/opt\/py has no sglang/,
    ],
    ["/opt/py: No module named sglang.launch_server", "config.invalid", /has no sglang/],
    ["ModuleNotFoundError: No module named 'sgl_kernel'", "config.invalid", /lacks sgl_kernel/],
    ["sglang serve: error: unrecognized arguments: --sgl-x 3", "config.invalid", /knows no --sgl-x 3/],
    [
      "sglang serve: error: argument --dtype: invalid choice: 'fp4' (choose from 'auto')",
      "config.invalid",
      /this value of --dtype: invalid choice/,
    ],
    ["[Errno 98] error while attempting to bind on address ('127.0.0.1', 30000): address already in use", "port.taken", /port 30000/],
    [
      "RuntimeError: Not enough memory. Please try to increase --mem-fraction-static. Current value: 0.3",
      "config.invalid",
      /raise --sglang-mem-fraction-static/,
    ],
    ["torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.", "config.invalid", /lower --sglang-mem-fraction-static/],
    ["RuntimeError: No CUDA GPUs are available", "config.invalid", /--sglang-device cpu/],
    ["OSError: /models/x does not appear to have a file named config.json.", "config.invalid", /\/models\/x is not a model/],
    ["huggingface_hub.errors.HFValidationError: Repo id must be in the form 'repo_name'", "config.invalid", /--hf-checkpoint/],
    ["OSError: We couldn't connect to 'https://huggingface.co' to load the files", "config.invalid", /no local folder/],
    ["OSError: [Errno 28] No space left on device", "config.invalid", /\/dev\/shm/],
    ["AssertionError: 7 is not divisible by 2", "config.invalid", /--rollout-num-gpus-per-engine/],
    ["RuntimeError: something new", "process.exited", /RuntimeError: something new/],
  ])("%s", (line, code, words) => {
    const lines = ["Traceback (most recent call last):", line, "some line after it"];
    const failure = startFailure(server, { status: { exitCode: 1, signal: null }, reason: null, phase: "loading weights", lines });
    expect(failure.code).toBe(code);
    expect(failure.message).toMatch(words);
    expect(failure.message).toMatch(/while loading weights.*last lines of \/logs\/x\.log/s);
  });

  it("is not what every server writes of parts it does without", () => {
    const lines = [
      "[2026-11-22 18:30:50] Ignore import error when loading sglang.srt.models.kimi_vl: No module named 'cutlass'",
      "[2026-11-22 18:30:51] OpenAI Responses API (/v1/responses) disabled: init failed (ModuleNotFoundError: No module named 'openai_harmony')",
      "AssertionError: Cache flush failed after updating weights",
      "[2026-11-22 18:30:59] SIGQUIT received. signum=None, frame=None. It usually means one child failed.",
    ];
    expect(causeOfDeath(lines, server)).toEqual({ line: lines[2], fix: null, kind: "passing" });
    expect(causeOfDeath(lines.slice(0, 2), server)).toEqual({ line: null, fix: null, kind: "passing" });
  });

  it("is not made up", () => {
    expect(causeOfDeath(["all is well"], server)).toEqual({ line: null, fix: null, kind: "passing" });
    const failure = startFailure(server, { status: { exitCode: null, signal: "SIGKILL" }, reason: null, phase: null, lines: [] });
    expect(failure.message).toContain("killed by SIGKILL); its log /logs/x.log is empty");
  });
});
