import { resolve } from "node:path";
import { localNodes } from "@slime/node";
import { detectPlatform } from "@slime/platform";
import { nodesDirOf } from "./join-options.js";

/** Nodes of this machine, by their state directories and the processes that carry their marks; needs no head. */
export async function statusCommand(
  flags: { readonly json?: boolean; readonly stateDir?: string },
  env: Readonly<Record<string, string | undefined>>,
  write: (line: string) => void,
): Promise<void> {
  const nodes = await localNodes(nodesDirOf(env), flags.stateDir === undefined ? [] : [resolve(flags.stateDir)], detectPlatform(env));
  const rows = nodes.map(({ record, pid, processes, path }) => ({
    nodeId: record.nodeId,
    clusterId: record.clusterId,
    headAddress: record.headAddress,
    pid,
    processes: processes.length,
    stateDir: path,
  }));
  if (flags.json === true) return write(`${JSON.stringify(rows, null, 2)}\n`);
  if (rows.length === 0) return write("no node of this machine is in a cluster; `slime-worker join 127.0.0.1:6380` joins one\n");
  for (const row of rows) {
    const daemon = row.pid === null ? "daemon dead: `slime-worker join` takes over, `slime-worker stop` ends it" : `daemon pid ${row.pid}`;
    write(`${row.nodeId}  ${row.clusterId}  head ${row.headAddress}  ${daemon}  ${row.processes} processes\n  ${row.stateDir}\n`);
  }
}
