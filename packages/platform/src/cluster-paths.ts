import { userInfo } from "node:os";
import { join, resolve } from "node:path";

/** The first eight hex digits of a cluster's id: short enough for socket paths, which hold 107 bytes on Linux and 103 on macOS. */
export function clusterTag(clusterId: string): string {
  return clusterId.slice(clusterId.indexOf("_") + 1).slice(0, 8);
}

/** Where the sockets of a cluster's processes lie on this machine, one directory per user; `SLIME_SOCKET_DIR` overrides it. */
export function socketDirOf(clusterId: string, override?: string): string {
  return override !== undefined && override !== "" ? resolve(override) : join("/tmp", `slime-${userInfo().uid}-${clusterTag(clusterId)}`);
}

/** Where the objects of a cluster lie on this machine; `SLIME_STORE_DIR` overrides it. */
export function storeDirOf(clusterId: string, sharedMemoryRoot: string, override?: string): string {
  return override !== undefined && override !== "" ? resolve(override) : join(sharedMemoryRoot, `slime-${clusterTag(clusterId)}`);
}
