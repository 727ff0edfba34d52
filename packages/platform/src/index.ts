export { clusterTag, socketDirOf, storeDirOf } from "./cluster-paths.js";
export {
  type DeathEvidence,
  describeDeath,
  type ExitStatus,
  exitStatusOf,
  type HowItDied,
  lastWords,
  readExitFile,
} from "./exit-status.js";
export { type ExitWatcher, type ExitWatcherOptions, exitWatcher, type Watched } from "./exit-watch.js";
export { appendLine, lastLines, privateDirectory, readTextIfThere, syncDirectory, writeFileAtomic } from "./files.js";
export { type GpuDevice, type GpuReading, isVirtualGpu, type NvidiaSmi, readGpus, realGpus, systemNvidiaSmi, virtualGpus } from "./gpus.js";
export { errnoOf, translateIoError } from "./io-errors.js";
export { exists, type KillOptions, type KillTarget, killMarked, killTree, signal } from "./kill-tree.js";
export { exitFileIn, type Launched, type LaunchOptions, launch } from "./launch.js";
export { acquireLock, type Lock, type LockOwner, livingOwner, lockOwner } from "./lock.js";
export { assignmentLogBase, type LogFiles, linkLogs, processLogs } from "./log-layout.js";
export { type MachineLimits, machineLimits, memoryFreeMib } from "./machine.js";
export type { OomCounter } from "./oom.js";
export { type Assignment, decodeOwnership, encodeOwnership, type OwnershipRecord } from "./ownership.js";
export { detectPlatform, type Platform } from "./platform.js";
export { isFree, type PortLeases, portLeases } from "./ports.js";
export type { ProcessActivity, ProcessEntry, ProcessIdentity, ProcessMark, ProcessTable } from "./process-table.js";
export { type RunCommandOptions, runCommand } from "./run-command.js";
export { type DaemonContext, type RunDaemonOptions, runDaemon } from "./run-daemon.js";
export { type SuperviseOptions, supervise } from "./supervise.js";
export { typedCommand } from "./typed-command.js";
