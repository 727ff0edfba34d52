import { join } from "node:path";
import { systemClock, systemRandom } from "@slime/core";
import { startHead } from "@slime/head";
import { acquireLock, detectPlatform, privateDirectory, runDaemon, typedCommand } from "@slime/platform";
import { pinoLogger } from "@slime/telemetry";
import { removeHeadFile, writeHeadFile } from "./head-file.js";
import { resolveHead, stateDirectoryOf } from "./head-options.js";
import { textLog } from "./text-log.js";
import { version } from "./version.js";

/** Runs the head until it is told to stop; by default the cluster ends with it. Exits the process. */
export async function startCommand(
  flags: Readonly<Record<string, unknown>>,
  env: Readonly<Record<string, string | undefined>>,
  write: (text: string) => void,
): Promise<void> {
  const { options, stateDirectory } = resolveHead(flags, env);
  const people = (options.log ?? (process.stderr.isTTY ? "text" : "json")) === "text";
  const log = people ? textLog((line) => process.stderr.write(line)) : pinoLogger({ fields: { comp: "head" } });
  await runDaemon(
    "slime-head",
    async ({ stopped, stop }) => {
      const { processes } = detectPlatform(env);
      await privateDirectory(stateDirectory);
      await using _lock = await acquireLock(join(stateDirectory, "head.lock"), `slime-head on ${stateDirectory}`, processes);
      let alone = false;
      const running = await startHead(
        { host: options.host, port: options.port, httpPort: options.httpPort, nodeIp: options.nodeIp, stateDirectory, version },
        {
          clock: systemClock,
          random: systemRandom,
          log,
          onStop: (reason) => {
            alone = true; // what had to end has ended already
            stop(reason);
          },
        },
      );
      await using head = running;
      const identity = await processes.identify(process.pid);
      if (identity === null) throw new Error("this process is not in its own process table");
      await writeHeadFile(stateDirectory, {
        version: 1,
        clusterId: head.head.clusterId,
        epoch: head.head.epoch,
        grpcAddress: head.address,
        httpAddress: head.httpAddress,
        process: identity,
        startedAtMs: systemClock.wallMs(),
      });
      write(banner(running.head.clusterId, running.head.epoch, head.address, head.httpAddress, stateDirectory));
      const reason = await stopped;
      log.info("head.stopping", { reason });
      if (!alone) {
        const left = await head.stopCluster(options.grace * 1_000);
        if (left.length > 0) write(`not reached: ${left.join(", ")}; \`slime-worker stop --all\` on their machine ends them\n`);
      }
      await removeHeadFile(stateDirectory);
      write("slime-head: stopped\n");
    },
    { log },
  );
}

function banner(clusterId: string, epoch: number, address: string, httpAddress: string, stateDirectory: string): string {
  // The usual state directory is where commands look for a head's address; commands that would reach another head are shown with it.
  const usual = stateDirectory === stateDirectoryOf(undefined, process.env);
  const at = usual || httpAddress === "127.0.0.1:8265" ? "" : ` --address http://${httpAddress}`;
  const home = usual ? "" : ` --state-dir ${stateDirectory}`;
  const typed = (name: string) => typedCommand(name, process.env);
  return `slime-head ${version}: ${clusterId} is ready${epoch > 1 ? ` again (life ${epoch}; state was kept)` : ""}
  control plane  ${address}
  jobs, state    http://${httpAddress}   (metrics: /metrics)
  state          ${stateDirectory}

Next, in other terminals:
  ${typed("slime-worker")} join ${address} --num-gpus 1      (declares a virtual GPU; leave it out where there are real ones)
  ${typed("slime")} job submit${at} -- slime train --config examples/sort/run.yaml
  ${typed("slime")} status${at}
Ctrl-C stops the cluster; so does \`${typed("slime-head")} stop${home}\`.
`;
}
