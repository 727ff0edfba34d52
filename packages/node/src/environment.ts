import type { GpuDevice } from "@slime/platform";
import { hostEnvironment } from "@slime/rpc";
import type { JobSpec, ActorSpec as PlannedActor } from "@slime/rpc/control";

/** What every process of a node is told, whoever it becomes. */
export interface NodeEnvironment {
  /** The daemon's own environment. */
  readonly base: Readonly<Record<string, string | undefined>>;
  readonly clusterId: string;
  readonly nodeId: string;
  readonly headAddress: string;
  readonly httpAddress: string;
  readonly eventsEndpoint: string;
  readonly socketDir: string;
  readonly storeDir: string;
  readonly nodeSocket: string;
  /** Directories put in front of PATH, so that `slime` is found. */
  readonly binDirs: readonly string[];
}

type Env = Readonly<Record<string, string>>;

/**
 * Variables that only count when they are there at exec: the runtime or the loader reads them before any code of ours runs.
 * An actor that sets one gets a process of its own instead of a prestarted one.
 */
const atExec = /^(NODE_|LD_|DYLD_|UV_|MALLOC_|GLIBC_|PYTHON|OMP_|MKL_|OPENBLAS_|TZ$|LANG$|LC_)/;

/** Whether a prestarted process would come too late for these variables. */
export function needsFreshProcess(env: Env): boolean {
  return Object.keys(env).some((name) => atExec.test(name));
}

/** The environment of a process at exec, before it belongs to anybody. */
export function processEnvironment(node: NodeEnvironment, processId: string): Env {
  const base = Object.fromEntries(
    Object.entries(node.base).flatMap(([name, value]) => (value === undefined || notInherited.has(name) ? [] : [[name, value]])),
  );
  const path = [...node.binDirs, base["PATH"] ?? "/usr/local/bin:/usr/bin:/bin"].join(":");
  return { ...base, PATH: path, ...marksOf(node), [hostEnvironment.processId]: processId };
}

/** What a daemon may itself have been given as somebody's child, and must not hand on. */
const notInherited: ReadonlySet<string> = new Set([
  hostEnvironment.jobId,
  hostEnvironment.submissionId,
  hostEnvironment.actorId,
  hostEnvironment.incarnation,
]);

function marksOf(node: NodeEnvironment): Env {
  return {
    [hostEnvironment.clusterId]: node.clusterId,
    [hostEnvironment.nodeId]: node.nodeId,
    [hostEnvironment.headAddress]: node.headAddress,
    SLIME_HTTP_ADDRESS: node.httpAddress,
    SLIME_EVENTS_ENDPOINT: node.eventsEndpoint,
    [hostEnvironment.socketDir]: node.socketDir,
    [hostEnvironment.storeDir]: node.storeDir,
    [hostEnvironment.nodeSocket]: node.nodeSocket,
  };
}

/** What an actor adds to its process: its variables (the head has put its job's beneath them), then its ids and GPUs, which nobody overrides. */
export function actorEnvironment(spec: PlannedActor, incarnation: number, gpus: readonly GpuDevice[]): Env {
  return {
    ...spec.env,
    ...gpuEnvironment(spec.gpuVisibility, gpus),
    [hostEnvironment.jobId]: spec.jobId,
    [hostEnvironment.actorId]: spec.actorId,
    [hostEnvironment.incarnation]: String(incarnation),
  };
}

/** A driver's whole environment. It sees no GPU: what needs one asks for it as an actor. */
export function driverEnvironment(node: NodeEnvironment, processId: string, spec: JobSpec): Env {
  const own = processEnvironment(node, processId);
  const path = spec.env["PATH"] === undefined ? {} : { PATH: [...node.binDirs, spec.env["PATH"]].join(":") };
  return {
    ...own,
    ...spec.env,
    ...path,
    ...marksOf(node),
    [hostEnvironment.processId]: processId,
    [hostEnvironment.jobId]: spec.jobId,
    [hostEnvironment.submissionId]: spec.submissionId,
    CUDA_VISIBLE_DEVICES: "",
  };
}

/** Real GPUs are named by UUID, which no reordering changes; declared ones by index, for they have no other name to CUDA. */
function gpuEnvironment(visibility: string, gpus: readonly GpuDevice[]): Env {
  if (visibility === "all") return {};
  const names = visibility === "none" ? [] : gpus.map((gpu) => (gpu.virtual ? String(gpu.index) : gpu.uuid));
  return { CUDA_VISIBLE_DEVICES: names.join(",") };
}
