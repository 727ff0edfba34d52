import { credentials } from "@grpc/grpc-js";
import { SlimeError, sleep, systemClock } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import { fromFailure, readFailure } from "@slime/rpc";
import { ControlServiceClient } from "@slime/rpc/control";
import { livingHead, readHeadFile, removeHeadFile } from "./head-file.js";
import { stateDirectoryOf } from "./head-options.js";

type Env = Readonly<Record<string, string | undefined>>;

export interface StopFlags {
  readonly stateDir?: string;
  readonly leaveWorkers?: true;
  readonly grace: string;
}

/** What a cluster may take to end beyond its grace, before we say so. */
const marginMs = 45_000;

/** Ends the cluster: jobs, actors, workers, head; or, with `leaveWorkers`, the head alone. Returns when the head's process is gone. */
export async function stopCommand(flags: StopFlags, env: Env, write: (text: string) => void): Promise<void> {
  const graceMs = Number(flags.grace) * 1_000;
  if (!(graceMs >= 0))
    throw new SlimeError("usage", `--grace: ${JSON.stringify(flags.grace)} is no number of seconds`, { issues: ["--grace"] });
  const stateDirectory = stateDirectoryOf(flags.stateDir, env);
  const platform = detectPlatform(env);
  const head = await livingHead(stateDirectory, platform);
  if (head === null) {
    const left = await readHeadFile(stateDirectory);
    await removeHeadFile(stateDirectory);
    write(
      left === null
        ? `no head runs on ${stateDirectory}\n`
        : `the head of ${left.clusterId} (pid ${left.process.pid}) is dead already; \`slime-worker stop --all\` ends what it left, \`slime-head start\` takes it up again\n`,
    );
    return;
  }
  write(`${head.clusterId}: ${flags.leaveWorkers === true ? "the head stops, workers stay" : "stopping jobs, actors and workers"} …\n`);
  const client = new ControlServiceClient(head.grpcAddress, credentials.createInsecure());
  try {
    await new Promise<void>((resolve, reject) => {
      const deadline = systemClock.wallMs() + graceMs + marginMs;
      client.waitForReady(systemClock.wallMs() + 5_000, (unreachable) => {
        if (unreachable != null)
          return reject(
            new SlimeError(
              "head.unavailable",
              `the head at ${head.grpcAddress} (pid ${head.process.pid}) does not answer`,
              { address: head.grpcAddress },
              { cause: unreachable },
            ),
          );
        client.makeUnaryRequest(
          ControlServiceClient.service.stopHead.path,
          ControlServiceClient.service.stopHead.requestSerialize,
          ControlServiceClient.service.stopHead.responseDeserialize,
          { graceMs, leaveNodes: flags.leaveWorkers === true },
          { deadline },
          (error) => (error === null ? resolve() : reject(translate(error, head.grpcAddress))),
        );
      });
    });
  } finally {
    client.close();
  }
  const untilMs = systemClock.nowMs() + marginMs;
  while (await platform.processes.isAlive(head.process)) {
    if (systemClock.nowMs() > untilMs)
      throw new SlimeError("process.exited", `the head (pid ${head.process.pid}) said it stops but lives on`, {
        what: "slime-head",
        exitCode: null,
        signal: null,
      });
    await sleep(systemClock, 50);
  }
  write(`${head.clusterId}: stopped\n`);
}

/** The head's failure as it was thrown there; anything else is a connection that broke. */
function translate(error: { readonly details: string }, address: string): unknown {
  try {
    return fromFailure(readFailure(JSON.parse(error.details)));
  } catch {
    return new SlimeError(
      "head.unavailable",
      `the head at ${address} did not answer the stop: ${error.details}`,
      { address },
      { cause: error },
    );
  }
}
