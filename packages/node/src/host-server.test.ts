import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { silentLogger, systemClock } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import { detectPlatform } from "@slime/platform";
import { connect } from "@slime/rpc";
import { afterEach, expect, it } from "vitest";
import { hostServer } from "./host-server.js";
import type { NodeEvent } from "./node-state.js";

const directory = mkdtempSync(join(tmpdir(), "slime-hosts-"));
afterEach(() => rmSync(directory, { recursive: true, force: true }));

it("a host that registered before anybody expected it is not waited for, and so never judged to hang", async () => {
  const clock = virtualClock();
  const events: NodeEvent[] = [];
  const clusterId = "cluster_0000000000000001";
  const idle = { cpuMs: 0, stopped: false, runnable: false };
  const platform = { ...detectPlatform({}), processes: { ...detectPlatform({}).processes, activity: async () => idle } };
  const path = join(directory, "node.sock");
  await using server = await hostServer({
    path,
    clusterId,
    nodeId: "node_0000000000000001",
    platform,
    clock,
    log: silentLogger,
    isKnown: () => true,
    onEvent: (event) => void events.push(event),
    leasePorts: async () => [],
  });
  const hello = { clusterId, who: { kind: "host" as const, id: "proc_1", incarnation: 0, pid: 7 } };
  const peer = await connect(path, { hello, handler: () => null, clock: systemClock, log: silentLogger, heartbeat: null });
  await peer.call(
    "host.register",
    { processId: "proc_1", pid: 7, language: "node", runtimeVersion: "v20", actor: null },
    { timeoutMs: 5_000 },
  );
  server.expect("proc_1", 7);
  server.expect("proc_2", 8);
  await clock.run(9_000);
  expect(server.connected("proc_1")).toBe(true);
  await clock.run(60_000);
  const hung = events.flatMap((event) => (event.kind === "host_hangs" ? [event.processId] : []));
  expect(hung[0]).toBe("proc_2");
  expect(events.find((event) => event.kind === "host_hangs" && event.processId === "proc_1")).toBeUndefined();
  await peer.close({ reason: "done" });
});
