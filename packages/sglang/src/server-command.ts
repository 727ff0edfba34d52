/** What a setting of a server may be. True: a bare switch; false and null: left out; a list: one flag with several words. */
export type ServerArgValue = string | number | boolean | readonly (string | number)[] | null;
export type ServerArgs = Readonly<Record<string, ServerArgValue>>;

/** One SGLang process, complete: an engine on one node is one of them, an engine over n nodes is n. */
export interface ServerSpec {
  /** A Python in which `sglang.launch_server` can be run. */
  readonly python: string;
  readonly modelPath: string;
  readonly host: string;
  /** Of HTTP. On nodes other than the first, SGLang serves nothing there but its own health. */
  readonly port: number;
  /** The command line's flags by name in snake_case (`mem_fraction_static`). */
  readonly args: ServerArgs;
  /** Added to the inherited environment, and stronger. */
  readonly env: Readonly<Record<string, string>>;
  /** What it sees of the node's GPUs, in this order. Empty: none. */
  readonly gpuUuids: readonly string[];
  readonly node: { readonly rank: number; readonly count: number; readonly distInitAddress: string | null };
}

/** A command line and the whole environment it runs in. */
export interface ServerCommand {
  readonly argv: readonly [string, ...string[]];
  readonly env: Readonly<Record<string, string>>;
}

/**
 * The process of a spec. Pure: the same spec and environment give the same command, flags in alphabetical order.
 * @param inherited what the process would inherit; our marks in it are kept, so that the daemon finds the server.
 */
export function serverCommand(spec: ServerSpec, inherited: Readonly<Record<string, string | undefined>> = {}): ServerCommand {
  const { node } = spec;
  const fixed: ServerArgs = {
    model_path: spec.modelPath,
    host: spec.host,
    port: spec.port,
    ...(node.count > 1 ? { nnodes: node.count, node_rank: node.rank } : {}),
    ...(node.distInitAddress === null ? {} : { dist_init_addr: node.distInitAddress }),
  };
  return {
    argv: [spec.python, "-m", "sglang.launch_server", ...commandLineOf(fixed), ...commandLineOf(sorted(spec.args))],
    env: serverEnvironment(spec, inherited),
  };
}

/** Settings as words of a command line. */
export function commandLineOf(args: ServerArgs): readonly string[] {
  return Object.entries(args).flatMap(([name, value]) => {
    const flag = `--${name.replaceAll("_", "-")}`;
    if (value === null || value === false) return [];
    if (value === true) return [flag];
    if (typeof value === "object") return [flag, ...value.map(String)];
    // A text that begins with "-" would be taken for a flag.
    return typeof value === "string" && value.startsWith("-") ? [`${flag}=${value}`] : [flag, String(value)];
  });
}

/** What every server gets unless its own `env` says otherwise. */
const defaults: Readonly<Record<string, string>> = {
  // A crashed server would wait 60 s for core dumps with its port open.
  SGLANG_CUDA_COREDUMP_BEFORE_CRASH: "0",
  // Its own 5 s are shorter than what clients keep idle connections for, and a connection reused while it closes is a lost request.
  SGLANG_TIMEOUT_KEEP_ALIVE: "75",
  // Lines reach the log when they are written, not when a buffer is full.
  PYTHONUNBUFFERED: "1",
};

/** Names under which torch reads how its allocator works. */
const allocatorVariables: ReadonlySet<string> = new Set(["PYTORCH_CUDA_ALLOC_CONF", "PYTORCH_ALLOC_CONF"]);

function serverEnvironment(spec: ServerSpec, inherited: Readonly<Record<string, string | undefined>>): Readonly<Record<string, string>> {
  const env: Record<string, string> = { ...defaults };
  for (const [name, value] of [...Object.entries(inherited), ...Object.entries(spec.env)]) {
    if (value === undefined) continue;
    const kept = allocatorVariables.has(name) ? withoutExpandableSegments(value) : value;
    if (kept === "" && allocatorVariables.has(name)) delete env[name];
    else env[name] = kept;
  }
  // Hidden GPUs cannot be taken by mistake; by UUID, since numbers differ between tools. In this order: rank r of the node sees the r-th.
  env["CUDA_VISIBLE_DEVICES"] = spec.gpuUuids.join(",");
  return env;
}

/** Expandable segments can be neither shared by CUDA IPC nor released by the memory saver. */
function withoutExpandableSegments(value: string): string {
  return value
    .split(",")
    .filter((item) => !item.trim().startsWith("expandable_segments"))
    .join(",");
}

function sorted(args: ServerArgs): ServerArgs {
  return Object.fromEntries(Object.entries(args).sort(([a], [b]) => (a < b ? -1 : 1)));
}
