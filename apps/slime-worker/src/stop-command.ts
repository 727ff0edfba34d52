import { resolve } from "node:path";
import { Metadata } from "@grpc/grpc-js";
import { SlimeError, sleep, systemClock } from "@slime/core";
import { checkHeadAddress, controlClient, endDeadNode, findLocal, type LocalNode, localNodes } from "@slime/node";
import { detectPlatform, type Platform, signal } from "@slime/platform";
import { nodesDirOf } from "./join-options.js";

type Env = Readonly<Record<string, string | undefined>>;

export interface StopFlags {
  readonly all?: boolean;
  readonly address?: string;
  readonly stateDir?: string;
  readonly grace: string;
}

/** How long beyond its grace a daemon may take to end, before we say so. */
const marginMs = 20_000;

/** Ends nodes of this machine, with or without a head; nodes of other machines through the head at `--address`. */
export async function stopCommand(wanted: readonly string[], flags: StopFlags, env: Env, write: (line: string) => void): Promise<void> {
  const platform = detectPlatform(env);
  const graceMs = Number(flags.grace) * 1_000;
  if (!(graceMs >= 0))
    throw new SlimeError("usage", `--grace: ${JSON.stringify(flags.grace)} is no number of seconds`, { issues: ["--grace"] });
  const here = (await localNodes(nodesDirOf(env), flags.stateDir === undefined ? [] : [resolve(flags.stateDir)], platform)).filter(
    ({ record }) => flags.address === undefined || record.headAddress === flags.address,
  );
  const remote: string[] = [];
  const chosen = wanted.length === 0 ? unnamed(here, flags) : wanted.flatMap((name) => local(here, name, flags, remote));
  if (chosen.length === 0 && remote.length === 0) return write("no node of this machine is in a cluster; nothing to stop\n");
  const results = await Promise.allSettled([
    ...chosen.map((node) => stopOne(node, platform, env, graceMs, write)),
    ...remote.map((nodeId) => stopThroughHead(nodeId, flags.address ?? "", graceMs, write)),
  ]);
  for (const result of results) if (result.status === "rejected") throw result.reason;
}

function unnamed(here: readonly LocalNode[], flags: StopFlags): readonly LocalNode[] {
  if (here.length <= 1 || flags.all === true || flags.stateDir !== undefined)
    return flags.stateDir === undefined ? here : here.filter(({ path }) => path === resolve(flags.stateDir ?? ""));
  const list = here.map(({ record }) => `  ${record.nodeId}  of ${record.headAddress}`).join("\n");
  throw new SlimeError("usage", `${here.length} nodes run on this machine: name one, or give --all\n${list}`, {
    issues: ["name a node or give --all"],
  });
}

function local(here: readonly LocalNode[], name: string, flags: StopFlags, remote: string[]): readonly LocalNode[] {
  try {
    return [findLocal(here, name)];
  } catch (error) {
    if (flags.address === undefined || !SlimeError.is(error, "not_found")) throw error;
    remote.push(name);
    return [];
  }
}

async function stopOne(node: LocalNode, platform: Platform, env: Env, graceMs: number, write: (line: string) => void): Promise<void> {
  const { nodeId } = node.record;
  if (node.pid !== null) {
    signal(node.pid, "SIGTERM");
    write(`${nodeId}: asked pid ${node.pid} to stop …\n`);
    const identity = await platform.processes.identify(node.pid);
    const untilMs = systemClock.nowMs() + graceMs + marginMs;
    while (identity !== null && (await platform.processes.isAlive(identity))) {
      if (systemClock.nowMs() > untilMs) {
        signal(node.pid, "SIGKILL");
        write(`${nodeId}: pid ${node.pid} did not end in time and was killed\n`);
        break;
      }
      await sleep(systemClock, 50);
    }
  }
  const again = (await localNodes("", [node.path], platform))[0];
  if (again !== undefined && again.pid === null) {
    const left = await endDeadNode(again, { platform, clock: systemClock, env, graceMs });
    if (left.length > 0)
      throw new SlimeError("process.exited", `pids ${left.join(", ")} of ${nodeId} could not be ended`, {
        what: nodeId,
        exitCode: null,
        signal: null,
      });
  }
  write(`${nodeId}: stopped; logs stay in ${node.path}/logs\n`);
}

async function stopThroughHead(nodeId: string, address: string, graceMs: number, write: (line: string) => void): Promise<void> {
  const client = controlClient(checkHeadAddress(address));
  try {
    await new Promise<void>((resolve, reject) => {
      client.stopNode({ nodeId, graceMs }, new Metadata(), { deadline: systemClock.wallMs() + graceMs + marginMs }, (error) =>
        error === null
          ? resolve()
          : reject(
              new SlimeError(
                "head.unavailable",
                `the head at ${address} did not stop ${nodeId}: ${error.details}`,
                { address },
                { cause: error },
              ),
            ),
      );
    });
    write(`${nodeId}: stopped by its head\n`);
  } finally {
    client.close();
  }
}
