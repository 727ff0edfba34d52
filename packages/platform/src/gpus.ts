import { execFile } from "node:child_process";

/** A graphics processor of this machine, or a declared one. */
export interface GpuDevice {
  readonly index: number;
  readonly uuid: string;
  readonly name: string;
  readonly memoryMib: number;
  /** Declared by `--num-gpus` and backed by nothing. */
  readonly virtual: boolean;
}

/** What a GPU is doing now. */
export interface GpuReading {
  readonly index: number;
  /** 0 to 1. */
  readonly utilisation: number;
  readonly memoryUsedMib: number;
  readonly powerWatts: number;
}

/** Runs nvidia-smi with these arguments; null when there is none or it fails. */
export type NvidiaSmi = (args: readonly string[]) => Promise<string | null>;

const smiTimeoutMs = 10_000;

export const systemNvidiaSmi: NvidiaSmi = (args) =>
  new Promise((resolve) => {
    execFile("nvidia-smi", [...args], { timeout: smiTimeoutMs }, (error, stdout) => resolve(error === null ? stdout : null));
  });

/** GPUs that nvidia-smi lists, by index; [] where there is none. */
export async function realGpus(smi: NvidiaSmi = systemNvidiaSmi): Promise<readonly GpuDevice[]> {
  const text = await smi(["--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits"]);
  return rows(text).flatMap(([index, uuid, name, memory]) => {
    if (index === undefined || uuid === undefined || name === undefined || !/^\d+$/.test(index)) return [];
    return [{ index: Number(index), uuid, name, memoryMib: numberOr0(memory), virtual: false }];
  });
}

/** Use of each GPU now; a field the driver does not know ("[N/A]") is 0. */
export async function readGpus(smi: NvidiaSmi = systemNvidiaSmi): Promise<readonly GpuReading[]> {
  const text = await smi(["--query-gpu=index,utilization.gpu,memory.used,power.draw", "--format=csv,noheader,nounits"]);
  return rows(text).flatMap(([index, utilisation, memory, power]) => {
    if (index === undefined || !/^\d+$/.test(index)) return [];
    return [
      { index: Number(index), utilisation: numberOr0(utilisation) / 100, memoryUsedMib: numberOr0(memory), powerWatts: numberOr0(power) },
    ];
  });
}

const virtualPrefix = "VIRTUAL-";

/** Whether a GPU of this UUID is only declared: no program can compute on it. */
export function isVirtualGpu(uuid: string): boolean {
  return uuid.startsWith(virtualPrefix);
}

/** Declared GPUs, for machines that have none: schedulable like real ones, seen by index. */
export function virtualGpus(count: number, nodeId: string): readonly GpuDevice[] {
  const hex = nodeId.slice(nodeId.indexOf("_") + 1);
  return Array.from({ length: count }, (_, index) => ({
    index,
    uuid: `${virtualPrefix}${hex}-${index}`,
    name: "virtual",
    memoryMib: 0,
    virtual: true,
  }));
}

function rows(text: string | null): string[][] {
  return (text ?? "")
    .split("\n")
    .filter((line) => line.trim() !== "")
    .map((line) => line.split(",").map((field) => field.trim()));
}

function numberOr0(text: string | undefined): number {
  const value = Number.parseFloat(text ?? "");
  return Number.isFinite(value) ? value : 0;
}
