import { mkdirSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { temporaryDirectory } from "@slime/platform/testing";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { type ArgField, argTableOf, routerArgFields, serverArgFields, serverArgTable } from "./server-arg-fields.js";
import { distInitPorts, type ServerRequest, serverSpec } from "./server-args.js";
import type { ServerArgs } from "./server-command.js";

const request: ServerRequest = {
  python: "python3",
  modelPath: "/models/qwen3",
  env: {},
  passThrough: {},
  overrides: {},
  run: { seed: 42, gpusPerNode: 8, fp16: false, trustRemoteCode: false, returnRoutedExperts: false },
  engine: { role: "regular", rank: 3, gpus: 2, offload: false, frozen: false, encoderUrls: [] },
  node: { rank: 0, count: 1, gpuUuids: ["GPU-a", "GPU-b"], host: "127.0.0.1" },
  ports: { http: 20_000, nccl: 20_001, bootstrap: null, distInit: null },
};
type Change = { readonly [K in keyof ServerRequest]?: Partial<ServerRequest[K]> };
const changed = (change: Change): ServerRequest => ({
  ...request,
  ...change,
  passThrough: (change.passThrough ?? {}) as ServerArgs,
  overrides: (change.overrides ?? {}) as ServerArgs,
  env: {},
  run: { ...request.run, ...change.run },
  engine: { ...request.engine, ...change.engine },
  node: { ...request.node, ...change.node },
  ports: { ...request.ports, ...change.ports },
  python: request.python,
  modelPath: request.modelPath,
});
const args = (change: Change, table: Parameters<typeof serverSpec>[1]["table"] = null) => serverSpec(changed(change), { table }).args;
const issuesOf = (change: Change, table: Parameters<typeof serverSpec>[1]["table"] = null): readonly string[] => {
  try {
    serverSpec(changed(change), { table, suggest: (wrong, known) => known.filter((name) => name.startsWith(wrong.slice(0, 3))) });
    return [];
  } catch (error) {
    return (error as { readonly details: { readonly issues: readonly string[] } }).details.issues;
  }
};
const base = {
  tp_size: 2,
  random_seed: 42 + 3 * 8,
  trust_remote_code: false,
  nccl_port: 20_001,
  skip_server_warmup: true,
  enable_metrics: true,
  enable_memory_saver: false,
};

describe("what slime decides for a server", () => {
  it.each<[string, Change, ServerArgs]>([
    ["an engine on two GPUs", {}, {}],
    ["a run's flags", { passThrough: { mem_fraction_static: 0.8, log_level: "info" } }, { mem_fraction_static: 0.8, log_level: "info" }],
    ["computed over flags", { run: { fp16: true }, passThrough: { dtype: "bfloat16" } }, { dtype: "float16" }],
    ["pipeline stages share the GPUs", { passThrough: { pp_size: 2 } }, { pp_size: 2, tp_size: 1 }],
    ["memory given back", { engine: { offload: true } }, { enable_memory_saver: true, cuda_graph_backend_prefill: "disabled" }],
    [
      "frozen weights that give their memory back",
      { engine: { offload: true, frozen: true } },
      { enable_memory_saver: true, cuda_graph_backend_prefill: "disabled", enable_weights_cpu_backup: true },
    ],
    ["frozen weights that stay", { engine: { frozen: true } }, {}],
    [
      "a group's overrides win over all (A2)",
      { engine: { offload: true }, overrides: { "enable-memory-saver": false, dtype: "half" } },
      { enable_memory_saver: false, dtype: "half", cuda_graph_backend_prefill: "disabled" },
    ],
    [
      "a drafting model",
      { passThrough: { speculative_algorithm: "EAGLE" } },
      { speculative_algorithm: "EAGLE", enable_draft_weights_cpu_backup: true },
    ],
    ["routing replay", { run: { returnRoutedExperts: true } }, { enable_return_routed_experts: true }],
    [
      "prefill",
      { engine: { role: "prefill" }, ports: { bootstrap: 20_005 } },
      { disaggregation_mode: "prefill", disaggregation_bootstrap_port: 20_005, load_balance_method: "follow_bootstrap_room" },
    ],
    [
      "decode, without what keeps prompts",
      { engine: { role: "decode" }, passThrough: { enable_hierarchical_cache: true } },
      { disaggregation_mode: "decode" },
    ],
    [
      "decode, whose group wants it all the same",
      { engine: { role: "decode" }, overrides: { enable_hierarchical_cache: true } },
      { disaggregation_mode: "decode", enable_hierarchical_cache: true },
    ],
    ["an encoder", { engine: { role: "encoder" } }, { encoder_only: true }],
    ["images elsewhere", { engine: { encoderUrls: ["http://e:1"] } }, { language_only: true, encoder_urls: ["http://e:1"] }],
    [
      "sixteen GPUs on two nodes",
      { engine: { gpus: 16 }, node: { rank: 1, count: 2 }, ports: { distInit: "10.0.0.1:20050" } },
      { tp_size: 16 },
    ],
  ])("%s", (_what, change, wanted) => expect(args(change)).toEqual({ ...base, ...wanted }));

  it("gives the nodes of one engine one seed and one meeting point", () => {
    const of = (rank: number) =>
      serverSpec(
        changed({ engine: { gpus: 16 }, node: { rank, count: 2, gpuUuids: [`GPU-${rank}`] }, ports: { distInit: "10.0.0.1:20050" } }),
        { table: null },
      );
    expect(of(0).args).toEqual(of(1).args);
    expect([of(0).node, of(1).node]).toEqual([0, 1].map((rank) => ({ rank, count: 2, distInitAddress: "10.0.0.1:20050" })));
  });

  it("asks for a run of ports only where SGLang counts on", () => {
    expect([
      distInitPorts({}, 1),
      distInitPorts({}, 2),
      distInitPorts({ enable_dp_attention: true, dp_size: 4 }, 1),
      distInitPorts({ attn_dp_size: 2 }, 1),
    ]).toEqual([0, 31, 34, 31]);
  });

  it.each<[string, Change, RegExp]>([
    ["GPUs that do not divide", { passThrough: { pp_size: 3 } }, /pp_size 3 does not divide the 2 GPUs/],
    ["replicas without GPUs", { passThrough: { dp_size: 2 } }, /start more engines instead, or set enable_dp_attention/],
    ["prefill without its port", { engine: { role: "prefill" } }, /needs a bootstrap port/],
    ["one setting under two names", { overrides: { pp_size: 2, "pipeline-parallel-size": 2 } }, /given twice/],
  ])("%s", (_what, change, words) => expect(issuesOf(change).join()).toMatch(words));

  it("keeps what it owns from flags and from overrides, all said at once (A1)", () => {
    const mine = [
      "model_path",
      "port",
      "nccl_port",
      "tp_size",
      "tensor-parallel-size",
      "nnodes",
      "node_rank",
      "dist_init_addr",
      "base_gpu_id",
      "gpu_id_step",
      "config",
    ];
    const given = Object.fromEntries(mine.map((name) => [name, 1]));
    expect(issuesOf({ passThrough: given })).toHaveLength(mine.length);
    expect(issuesOf({ overrides: given })).toHaveLength(mine.length);
    const byRun = {
      random_seed: 1,
      enable_memory_saver: true,
      skip_server_warmup: false,
      trust_remote_code: true,
      enable_return_routed_experts: true,
    };
    expect(issuesOf({ passThrough: byRun })).toHaveLength(5);
    expect(issuesOf({ overrides: byRun })).toEqual([]);
  });
});

const field = (name: string, more: Partial<ArgField> = {}): ArgField => ({
  name,
  flag: name,
  aliases: [],
  deprecated: false,
  negatable: false,
  ...more,
});
const table = argTableOf([
  ...[
    "tp_size",
    "pp_size",
    "dp_size",
    "random_seed",
    "trust_remote_code",
    "nccl_port",
    "skip_server_warmup",
    "enable_metrics",
    "enable_memory_saver",
  ].map((name) => field(name)),
  field("fp8_gemm_runner_backend", { flag: "fp8_gemm_backend" }),
  field("lora_strict_loading", { negatable: true }),
  field("stat_loggers", { flag: null }),
  field("mem_fraction_static"),
]);

describe("with what the installed SGLang takes (A3)", () => {
  it("names flags as its command line does", () => {
    const given = { fp8_gemm_runner_backend: "triton", lora_strict_loading: false };
    expect(args({ passThrough: given }, table)).toEqual({ ...base, fp8_gemm_backend: "triton", no_lora_strict_loading: true });
    expect(args({ overrides: { "fp8-gemm-backend": "triton" } }, table)).toMatchObject({ fp8_gemm_backend: "triton" });
  });

  it("refuses what it does not know, with what may have been meant", () => {
    expect(issuesOf({ passThrough: { mem_fractoin_static: 0.8, stat_loggers: "x" } }, table)).toEqual([
      "--sglang-mem-fractoin-static: the installed SGLang has no such setting; did you mean mem-fraction-static?",
      "--sglang-stat-loggers cannot be given on SGLang's command line",
    ]);
  });

  it("leaves out what would only be better, and refuses where something would be lost", () => {
    expect(args({ engine: { offload: true } }, table)).not.toHaveProperty("cuda_graph_backend_prefill");
    expect(issuesOf({ engine: { offload: true, frozen: true } }, table)).toEqual([
      "the installed SGLang has no enable_weights_cpu_backup, and frozen weights must survive the release of their memory",
    ]);
  });

  it("lets every override through, and nothing else changes (A2)", () => {
    const names = fc.constantFrom("log_level", "chunked_prefill_size", "dtype", "enable_metrics", "random_seed", "attention_backend");
    fc.assert(
      fc.property(fc.dictionary(names, fc.oneof(fc.boolean(), fc.integer(), fc.string())), (overrides) => {
        expect(args({ overrides })).toEqual({ ...base, ...overrides });
      }),
    );
  });
});

describe("reading an installed SGLang without importing it", () => {
  const source = `
raise RuntimeError("imported")
class ServerArgs:
    model_path: A[str, Arg(help="x", aliases=["--model"])]
    tp_size: A[int, Arg(help="x", aliases=["--tensor-parallel-size"])] = 1
    fp8_gemm_runner_backend: A[str, Arg(help="x", cli_name="--fp8-gemm-backend")] = "auto"
    strict: A[Optional[bool], Arg(help="x", action=argparse.BooleanOptionalAction)] = None
    mem_fraction_static: Annotated[Optional[float], "text"] = None
    hooks: A[Optional[Callable], Arg(no_cli=True)] = None
    plain: int = 3
    tool: Optional[str] = None
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--tool", type=str)
        parser.add_argument("--old-flag", action=DeprecatedStoreTrueAction, dest="strict")
        parser.add_argument("--disk", "--disk-path", dest="disk_dir")
`;
  const install = (root: string, path: string, text: string) => {
    mkdirSync(dirname(join(root, path)), { recursive: true });
    writeFileSync(join(root, path), text);
  };

  it("finds fields, flags, aliases and what is old", async () => {
    await using root = await temporaryDirectory();
    install(root.path, "sglang/__init__.py", "raise RuntimeError('imported')");
    install(root.path, "sglang/srt/server_args.py", source);
    const env = { PATH: process.env["PATH"], PYTHONPATH: root.path };
    const found = await serverArgTable("python3", { env });
    expect(found?.get("tensor_parallel_size")?.name).toBe("tp_size");
    expect(found?.get("fp8_gemm_backend")).toMatchObject({ name: "fp8_gemm_runner_backend", flag: "fp8_gemm_backend" });
    expect(found?.get("strict")).toMatchObject({ negatable: true });
    expect(found?.get("old_flag")).toMatchObject({ deprecated: true });
    expect(found?.get("hooks")?.flag).toBeNull();
    expect(found?.get("disk_path")).toMatchObject({ name: "disk_dir", flag: "disk" });
    const names = await serverArgFields("python3", { env });
    expect([...(names ?? [])].sort()).toEqual([
      "disk",
      "disk_dir",
      "disk_path",
      "fp8_gemm_backend",
      "fp8_gemm_runner_backend",
      "mem_fraction_static",
      "model",
      "model_path",
      "old_flag",
      "strict",
      "tensor_parallel_size",
      "tool",
      "tp_size",
    ]);
  });

  it("finds what newer versions put together from namespaces", async () => {
    await using root = await temporaryDirectory();
    const fields = `
class Parallel(msgspec.Struct):
    _NS_PATH = "parallel"
    tp_size: A[int, Arg(help="x", aliases=["--tensor-parallel-size"])] = 1
    enable_dp_attention: A[bool, Arg(no_cli=True)] = False
    tp_rank: A[int, Derived("x")] = 0
class Helper:
    not_a_setting: A[int, "x"] = 1
`;
    install(root.path, "sglang/__init__.py", "");
    install(root.path, "sglang/srt/arg_groups/fields/parallel.py", fields);
    const server = `class ServerArgs:
    @staticmethod
    def add_cli_args(parser):
        parser.add_argument("--enable-dp-attention", action=DeprecatedStoreTrueAction)
`;
    install(root.path, "sglang/srt/server_args.py", server);
    const env = { PATH: process.env["PATH"], PYTHONPATH: root.path };
    const found = await serverArgTable("python3", { env });
    expect([...(found?.keys() ?? [])].sort()).toEqual(["enable_dp_attention", "tensor_parallel_size", "tp_size"]);
    expect(found?.get("enable_dp_attention")).toMatchObject({ flag: "enable_dp_attention", deprecated: true });
  });

  it("says null where it is not installed, and names a Python that is not there", async () => {
    const env = { PATH: process.env["PATH"], PYTHONPATH: "/nowhere" };
    expect(await serverArgFields("python3", { env })).toBeNull();
    expect(await routerArgFields("python3", { env })).toBeNull();
    await expect(serverArgFields("/no/python", { env })).rejects.toMatchObject({ code: "process.start" });
  });
});
