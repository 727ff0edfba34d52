/** The commands as people type them: slime-head, slime-worker, a job by HTTP. The daemon is killed while a job runs. Uses the build. */
import { spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { until } from "@slime/platform/testing";
import { expect, it } from "vitest";
import { Machine } from "./node-fixture.js";

const headBin = fileURLToPath(new URL("../../apps/slime-head/bin/slime-head.mjs", import.meta.url));

interface Status {
  readonly nodes: readonly { readonly node_id: string; readonly state: string; readonly pid: number; readonly incarnation: number }[];
}

it("a job outlives its daemon, its exit code arrives, and a stopped cluster leaves nothing", async () => {
  await using machine = new Machine();
  const head = spawn(process.execPath, [headBin, "start", "--port", "0", "--http-port", "0", "--log", "json"], {
    env: machine.env,
    stdio: "ignore",
  });
  const headExit = new Promise<number | null>((resolve) => head.once("exit", (code) => resolve(code)));
  const file = join(machine.root, "head", "head.json");
  await until("a head", () => existsSync(file));
  const { httpAddress, grpcAddress, clusterId } = JSON.parse(readFileSync(file, "utf8")) as {
    readonly httpAddress: string;
    readonly grpcAddress: string;
    readonly clusterId: string;
  };
  const api = async <T>(path: string, init?: RequestInit): Promise<T> =>
    (await fetch(`http://${httpAddress}${path}`, init)).json() as Promise<T>;
  const alive = (incarnation: number) =>
    until("the node", async () =>
      (await api<Status>("/api/status")).nodes.find((node) => node.state === "ALIVE" && node.incarnation === incarnation),
    );
  const cluster = async () =>
    (await machine.platform.processes.marked({ name: "SLIME_CLUSTER_ID", value: clusterId })).map(({ pid }) => pid);

  const first = machine.run("join", "--log", "json", "--pool-size", "1");
  const node = await alive(1);
  const entrypoint = "echo begin; while ! test -e go; do sleep 0.1; done; echo end; exit 7";
  const { job_id } = await api<{ readonly job_id: string }>("/api/jobs/", {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify({ entrypoint: `cd ${machine.root} && ${entrypoint}` }),
  });
  const job = () =>
    api<{ readonly status: string; readonly driver_exit_code: number | null; readonly driver_info: { readonly pid: string } | null }>(
      `/api/jobs/${job_id}`,
    );
  const running = await until("the driver", async () => {
    const now = await job();
    return now.status === "RUNNING" && now.driver_info;
  });

  expect(node.pid).toBe(first.process.pid);
  first.process.kill("SIGKILL");
  machine.run("join", grpcAddress, "--log", "json", "--pool-size", "1");
  expect((await alive(2)).node_id).toBe(node.node_id);
  expect((await job()).driver_info?.pid).toBe(running.pid);
  spawn("/bin/sh", ["-c", `: > ${join(machine.root, "go")}`]);
  const ended = await until("the job's end", async () => {
    const now = await job();
    return now.status === "FAILED" && now;
  });
  expect(ended.driver_exit_code).toBe(7);
  expect((await api<{ readonly logs: string }>(`/api/jobs/${job_id}/logs`)).logs).toBe("begin\nend\n");

  const stop = spawn(process.execPath, [headBin, "stop"], { env: machine.env, stdio: "ignore" });
  expect(await new Promise((resolve) => stop.once("exit", resolve))).toBe(0);
  expect(await headExit).toBe(0);
  await until("no process", async () => (await cluster()).length === 0);
  expect([existsSync(machine.socketDir), existsSync(machine.storeDir)]).toEqual([false, false]);
}, 60_000);
