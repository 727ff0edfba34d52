import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "@slime/platform/testing";

const bin = fileURLToPath(new URL("../../apps/slime-head/bin/slime-head.mjs", import.meta.url));

/** The head as its users start it, in a process that can be killed and started again on its state and its ports. */
export interface HeadProcess extends AsyncDisposable {
  readonly address: string;
  readonly httpAddress: string;
  readonly clusterId: string;
  readonly stateDir: string;
  readonly pid: () => number;
  /** SIGKILL, and gone. */
  readonly kill: () => Promise<void>;
  readonly restart: () => Promise<void>;
}

interface Written {
  readonly clusterId: string;
  readonly epoch: number;
  readonly grpcAddress: string;
  readonly httpAddress: string;
}

const portOf = (address: string): string => address.slice(address.lastIndexOf(":") + 1);

export async function headProcess(): Promise<HeadProcess> {
  const root = await mkdtemp(join(tmpdir(), "slime-head-"));
  const stateDir = join(root, "head");
  const file = join(stateDir, "head.json");
  let child: ChildProcess;

  const start = async (port: string, httpPort: string, epoch: number): Promise<Written> => {
    const started = spawn(
      process.execPath,
      [bin, "start", "--port", port, "--http-port", httpPort, "--state-dir", stateDir, "--log", "json"],
      { env: { ...process.env, NODE_OPTIONS: "" }, stdio: ["ignore", "ignore", "pipe"] },
    );
    child = started;
    let said = "";
    started.stderr.on("data", (data: Buffer) => (said += data.toString()));
    return until(
      `life ${epoch} of the head`,
      () => {
        if (started.exitCode !== null) throw new Error(`the head ended with ${started.exitCode}: ${said}`);
        const written = existsSync(file) ? (JSON.parse(readFileSync(file, "utf8")) as Written) : null;
        return written?.epoch === epoch ? written : null;
      },
      20_000,
    );
  };
  const kill = async () => {
    if (child.exitCode !== null || child.signalCode !== null) return;
    child.kill("SIGKILL");
    await once(child, "exit");
  };

  const { grpcAddress, httpAddress, clusterId } = await start("0", "0", 1);
  let epoch = 1;
  return {
    address: grpcAddress,
    httpAddress,
    clusterId,
    stateDir,
    pid: () => child.pid ?? 0,
    kill,
    restart: async () => void (await start(portOf(grpcAddress), portOf(httpAddress), ++epoch)),
    async [Symbol.asyncDispose]() {
      await kill();
      await rm(root, { recursive: true, force: true });
    },
  };
}
