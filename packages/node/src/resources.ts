import { SlimeError } from "@slime/core";
import { type GpuDevice, machineLimits, type NvidiaSmi, type Platform, realGpus, virtualGpus } from "@slime/platform";

/** What a user said this node has; what is left out is found out. */
export interface DeclaredResources {
  /** Virtual GPUs; leave out to use the real ones. */
  readonly numGpus?: number;
  readonly numCpus?: number;
  readonly memoryMib?: number;
  readonly custom?: Readonly<Record<string, number>>;
}

/** Resources as the control plane counts them: whole numbers of 1/10,000. */
export interface NodeResources {
  readonly units: Readonly<Record<string, number>>;
  readonly gpus: readonly GpuDevice[];
}

const unit = 10_000;
const reserved: ReadonlySet<string> = new Set(["CPU", "GPU", "memory"]);

/** @throws SlimeError `config.invalid`, all issues at once. */
export async function nodeResources(
  declared: DeclaredResources,
  nodeId: string,
  platform: Platform,
  smi?: NvidiaSmi,
): Promise<NodeResources> {
  const issues = Object.entries({
    "--num-gpus": declared.numGpus,
    "--num-cpus": declared.numCpus,
    "--memory": declared.memoryMib,
    ...prefixed(declared.custom ?? {}),
  })
    .filter(([, amount]) => amount !== undefined && !(Number.isFinite(amount) && amount >= 0))
    .map(([name, amount]) => `${name}: must be a number ≥ 0, got ${amount}`);
  if (declared.numGpus !== undefined && !Number.isInteger(declared.numGpus))
    issues.push(`--num-gpus: must be whole, got ${declared.numGpus}`);
  for (const name of Object.keys(declared.custom ?? {})) if (reserved.has(name)) issues.push(`--resources: ${name} has a flag of its own`);
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
  const limits = machineLimits(platform.kind);
  const gpus = declared.numGpus === undefined ? await realGpus(smi) : virtualGpus(declared.numGpus, nodeId);
  const amounts = {
    CPU: declared.numCpus ?? limits.cpus,
    memory: declared.memoryMib ?? limits.memoryMib,
    GPU: gpus.length,
    ...declared.custom,
  };
  return {
    units: Object.fromEntries(Object.entries(amounts).flatMap(([name, amount]) => (amount > 0 ? [[name, Math.round(amount * unit)]] : []))),
    gpus,
  };
}

function prefixed(custom: Readonly<Record<string, number>>): Record<string, number> {
  return Object.fromEntries(Object.entries(custom).map(([name, amount]) => [`--resources ${name}`, amount]));
}
