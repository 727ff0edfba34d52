import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { commandLineOf, type ServerSpec, serverCommand } from "./server-command.js";

const spec: ServerSpec = {
  python: "/opt/sglang/bin/python",
  modelPath: "/models/qwen3",
  host: "127.0.0.1",
  port: 20_001,
  args: { tp_size: 2, mem_fraction_static: 0.8, enable_metrics: true, enable_memory_saver: false, chat_template: null },
  env: {},
  gpuUuids: ["GPU-a", "GPU-b"],
  node: { rank: 0, count: 1, distInitAddress: null },
};

describe("the command line of a server", () => {
  it("has what the spec says, flags in order", () => {
    expect(serverCommand(spec).argv.join(" ")).toBe(
      "/opt/sglang/bin/python -m sglang.launch_server --model-path /models/qwen3 --host 127.0.0.1 --port 20001 " +
        "--enable-metrics --mem-fraction-static 0.8 --tp-size 2",
    );
  });

  it("gives every node of an engine its rank and where they meet", () => {
    const node = (rank: number) =>
      serverCommand({ ...spec, node: { rank, count: 2, distInitAddress: "10.0.0.1:20007" } })
        .argv.slice(9, 15)
        .join(" ");
    expect([node(0), node(1)]).toEqual([
      "--nnodes 2 --node-rank 0 --dist-init-addr 10.0.0.1:20007",
      "--nnodes 2 --node-rank 1 --dist-init-addr 10.0.0.1:20007",
    ]);
  });

  it.each([
    [{ a_b: true }, ["--a-b"]],
    [{ a: false, b: null }, []],
    [{ a: "" }, ["--a", ""]],
    [{ a: "-x" }, ["--a=-x"]],
    [{ a: -1 }, ["--a", "-1"]],
    [{ lora_paths: ["x", 2] }, ["--lora-paths", "x", "2"]],
  ])("%j", (args, words) => expect(commandLineOf(args)).toEqual(words));

  it("does not depend on the order of the settings", () => {
    fc.assert(
      fc.property(fc.shuffledSubarray(Object.keys(spec.args), { minLength: 5 }), (names) => {
        const args = Object.fromEntries(names.map((name) => [name, spec.args[name] ?? null]));
        expect(serverCommand({ ...spec, args }).argv).toEqual(serverCommand(spec).argv);
      }),
    );
  });
});

describe("the environment of a server", () => {
  const env = (inherited: Record<string, string | undefined>, own: Record<string, string> = {}, gpuUuids = spec.gpuUuids) =>
    serverCommand({ ...spec, env: own, gpuUuids }, inherited).env;

  it("keeps what it inherits, our marks included, and adds what keeps servers from harm", () => {
    expect(env({ PATH: "/bin", SLIME_PROCESS_ID: "process_1", NCCL_DEBUG: "INFO", NOTHING: undefined })).toEqual({
      PATH: "/bin",
      SLIME_PROCESS_ID: "process_1",
      NCCL_DEBUG: "INFO",
      SGLANG_CUDA_COREDUMP_BEFORE_CRASH: "0",
      SGLANG_TIMEOUT_KEEP_ALIVE: "75",
      PYTHONUNBUFFERED: "1",
      CUDA_VISIBLE_DEVICES: "GPU-a,GPU-b",
    });
  });

  it("lets the engine's own settings win, but for its GPUs", () => {
    const own = { SGLANG_TIMEOUT_KEEP_ALIVE: "5", CUDA_VISIBLE_DEVICES: "0,1,2,3", HF_HUB_OFFLINE: "1" };
    expect(env({ HF_HUB_OFFLINE: "0", SGLANG_TIMEOUT_KEEP_ALIVE: "9" }, own)).toMatchObject({
      SGLANG_TIMEOUT_KEEP_ALIVE: "5",
      HF_HUB_OFFLINE: "1",
      CUDA_VISIBLE_DEVICES: "GPU-a,GPU-b",
    });
    expect(env({}, {}, [])["CUDA_VISIBLE_DEVICES"]).toBe("");
  });

  it.each([
    ["expandable_segments:True", undefined],
    ["expandable_segments:True,max_split_size_mb:128", "max_split_size_mb:128"],
    ["max_split_size_mb:128", "max_split_size_mb:128"],
  ])("has no expandable segments: %s", (value, wanted) => {
    for (const name of ["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"]) {
      expect(env({ [name]: value })[name]).toBe(wanted);
      expect(env({}, { [name]: value })[name]).toBe(wanted);
    }
  });

  it("asks for no offline hub by itself", () => expect(Object.keys(env({})).filter((name) => name.startsWith("HF_"))).toEqual([]));
});
