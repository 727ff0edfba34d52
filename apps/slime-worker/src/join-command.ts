import { existsSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { type Logger, systemClock, systemRandom } from "@slime/core";
import { type HostCommands, type NodeOver, startNode } from "@slime/node";
import { detectPlatform, runDaemon } from "@slime/platform";
import { hostEntry } from "@slime/runtime";
import { pinoLogger } from "@slime/telemetry";
import { resolveJoin } from "./join-options.js";
import { textLog } from "./text-log.js";
import { version } from "./version.js";

type Env = Readonly<Record<string, string | undefined>>;

/** Gives this machine to a cluster until it is told to stop. Exits the process. */
export async function joinCommand(flags: Readonly<Record<string, unknown>>, env: Env): Promise<void> {
  const { options, nodesDir, memoryMib, custom, labels } = resolveJoin(flags, env);
  const people = (options.log ?? (process.stderr.isTTY ? "text" : "json")) === "text";
  const log: Logger = people ? textLog((line) => process.stderr.write(line)) : pinoLogger({ fields: { comp: "node" } });
  const stopGraceMs = options.grace * 1_000;
  await runDaemon(
    "slime-worker",
    async ({ stopped, signal }) => {
      const declared = {
        ...(options.numGpus === undefined ? {} : { numGpus: options.numGpus }),
        ...(options.numCpus === undefined ? {} : { numCpus: options.numCpus }),
        ...(memoryMib === undefined ? {} : { memoryMib }),
        custom,
      };
      const node = await startNode(
        {
          headAddress: options.address,
          nodesDir,
          stateDir: options.stateDir === undefined ? null : resolve(options.stateDir),
          address: options.nodeIp,
          name: options.name,
          labels,
          declared,
          env: { ...env, PWD: process.cwd() },
          version,
          poolSize: options.poolSize,
          binDirs: binDirs(import.meta.dirname),
          commands: hostCommands,
          joinTimeoutMs: options.wait * 1_000,
          stopGraceMs,
        },
        { platform: detectPlatform(env), clock: systemClock, random: systemRandom, log, signal },
      );
      log.info("node.started", { nodeId: node.nodeId, gives: inWords(node.resources), adopted: node.adopted, stateDir: node.stateDir });
      if ((node.resources[gpuResource] ?? 0) === 0) log.info("node.no_gpus", { nodeId: node.nodeId });
      const asked = stopped.then((reason): NodeOver => ({ reason, failure: null, graceMs: stopGraceMs }));
      const end = await Promise.race([asked, node.over]);
      await node.stop(end.reason, end.graceMs);
      if (end.failure !== null) throw end.failure;
    },
    { log },
  );
}

const gpuResource = "GPU";

function inWords(units: Readonly<Record<string, number>>): string {
  return Object.entries(units)
    .map(([name, amount]) => `${amount / 10_000}${name === "memory" ? " MiB" : ""} ${name}`)
    .join(", ");
}

/** Hosts lie in the runtime package: a compiled Node entry, and the Python package beside it. */
const hostCommands: HostCommands = (language, { interpreter }) => {
  if (language === "node") return { command: [process.execPath, hostEntry], env: {} };
  return {
    command: [interpreter || "python3", "-m", "slime_actor"],
    env: { PYTHONPATH: join(dirname(hostEntry), "../../python"), PYTHONUNBUFFERED: "1" },
  };
};

/** `node_modules/.bin` directories at and above this file, so that entrypoints find `slime` and the clone's tools. */
function binDirs(from: string): readonly string[] {
  const found: string[] = [];
  for (let dir = from; ; dir = dirname(dir)) {
    const bin = join(dir, "node_modules", ".bin");
    if (existsSync(join(bin, "slime"))) found.push(bin);
    if (dirname(dir) === dir) return found;
  }
}
