import type { ActorSpec, JobSpec } from "@slime/rpc/control";
import { describe, expect, it } from "vitest";
import { actorEnvironment, driverEnvironment, type NodeEnvironment, needsFreshProcess, processEnvironment } from "./environment.js";

const node: NodeEnvironment = {
  base: { PATH: "/bin", HOME: "/h", SHARED: "node", SLIME_JOB_ID: "another's", GONE: undefined },
  clusterId: "cluster_1",
  nodeId: "node_1",
  headAddress: "127.0.0.1:6380",
  httpAddress: "127.0.0.1:8265",
  eventsEndpoint: "",
  socketDir: "/s",
  storeDir: "/d",
  nodeSocket: "/s/n.sock",
  binDirs: ["/clone/bin"],
};
const gpu = (index: number, virtual: boolean) => ({ index, uuid: `GPU-${index}`, name: "", memoryMib: 0, virtual });
const spec = (change: Partial<ActorSpec>) =>
  ({ jobId: "job_1", actorId: "actor_1", env: {}, gpuVisibility: "assigned", ...change }) as ActorSpec;

describe("environments", () => {
  it("mark every process, and hand on no other's marks", () => {
    const env = processEnvironment(node, "proc_1");
    expect(env).toMatchObject({
      PATH: "/clone/bin:/bin",
      HOME: "/h",
      SLIME_CLUSTER_ID: "cluster_1",
      SLIME_NODE_ID: "node_1",
      SLIME_PROCESS_ID: "proc_1",
      SLIME_NODE_SOCKET: "/s/n.sock",
    });
    expect(Object.keys(env)).not.toContain("SLIME_JOB_ID");
    expect(Object.keys(env)).not.toContain("GONE");
  });
  it("let an actor's ids win over all", () => {
    const env = actorEnvironment(spec({ env: { B: "actor", SLIME_ACTOR_ID: "forged" } }), 3, []);
    expect(env).toMatchObject({ B: "actor", SLIME_ACTOR_ID: "actor_1", SLIME_INCARNATION: "3" });
  });
  it("give a driver its job's variables, our PATH in front of its own, and no GPU", () => {
    const job = { jobId: "job_1", env: { PATH: "/mine", SHARED: "job", SLIME_NODE_ID: "forged" } } as unknown as JobSpec;
    expect(driverEnvironment(node, "proc_1", job)).toMatchObject({
      PATH: "/clone/bin:/mine",
      SHARED: "job",
      SLIME_NODE_ID: "node_1",
      SLIME_JOB_ID: "job_1",
      SLIME_HTTP_ADDRESS: "127.0.0.1:8265",
      CUDA_VISIBLE_DEVICES: "",
    });
  });
  it.each([
    ["assigned", [gpu(1, false), gpu(3, false)], "GPU-1,GPU-3"],
    ["assigned", [gpu(1, true)], "1"],
    ["assigned", [], ""],
    ["none", [gpu(1, false)], ""],
    ["all", [gpu(1, false)], undefined],
  ] as const)("show GPUs as asked: %s", (gpuVisibility, gpus, visible) => {
    expect(actorEnvironment(spec({ gpuVisibility }), 1, gpus)["CUDA_VISIBLE_DEVICES"]).toBe(visible);
  });
  it("know what a prestarted process would get too late", () => {
    expect([{}, { FOO: "1" }, { NODE_OPTIONS: "x" }, { LD_LIBRARY_PATH: "x" }, { TZ: "UTC" }].map(needsFreshProcess)).toEqual([
      false,
      false,
      true,
      true,
      true,
    ]);
  });
});
