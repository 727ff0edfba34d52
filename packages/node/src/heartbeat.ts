import { cpus } from "node:os";
import { monitorEventLoopDelay } from "node:perf_hooks";
import type { Clock } from "@slime/core";
import { type GpuDevice, type GpuReading, memoryFreeMib, type NvidiaSmi, type Platform, readGpus } from "@slime/platform";
import type { Heartbeat } from "@slime/rpc/control";
import { nodeLimits } from "./limits.js";

export interface Pulse extends Disposable {
  readonly read: (sequence: number) => Heartbeat;
}

export interface PulseOptions {
  readonly platform: Platform;
  readonly clock: Clock;
  readonly gpus: readonly GpuDevice[];
  readonly storeBytesUsed: () => number;
  readonly smi?: NvidiaSmi;
}

/** What the node is doing, for the head: loop lag since the last beat, memory, processors, store, GPUs. */
export function pulse(options: PulseOptions): Pulse {
  const { clock, platform } = options;
  const lag = monitorEventLoopDelay({ resolution: 20 });
  lag.enable();
  let processors = processorTimes();
  let gpuReadings: readonly GpuReading[] = [];
  let gpusReadMs = Number.NEGATIVE_INFINITY;
  const real = options.gpus.some((gpu) => !gpu.virtual);
  return {
    read(sequence) {
      const now = processorTimes();
      const total = now.total - processors.total;
      const cpuFraction = total > 0 ? (now.busy - processors.busy) / total : 0;
      processors = now;
      const loopLagMs = Math.max(0, lag.max / 1e6 - 20);
      lag.reset();
      if (real && clock.nowMs() - gpusReadMs >= nodeLimits.gpuReadMs) {
        gpusReadMs = clock.nowMs();
        void readGpus(options.smi).then((readings) => void (gpuReadings = readings));
      }
      return {
        sequence,
        loopLagMs,
        memoryFreeMib: memoryFreeMib(platform.kind),
        cpuFraction,
        storeBytesUsed: options.storeBytesUsed(),
        gpus: [...gpuReadings],
      };
    },
    [Symbol.dispose]: () => lag.disable(),
  };
}

function processorTimes(): { readonly busy: number; readonly total: number } {
  let idle = 0;
  let total = 0;
  for (const { times } of cpus()) {
    idle += times.idle;
    total += times.user + times.nice + times.sys + times.idle + times.irq;
  }
  return { busy: total - idle, total };
}
