import type { ActorSpec } from "@slime/rpc/control";

/** An actor's spec with everything filled in, for tests. */
export function specOf(overrides: Partial<ActorSpec> & Pick<ActorSpec, "actorId" | "jobId">): ActorSpec {
  return {
    className: "Counter",
    host: "node",
    module: "/counter.js",
    exportName: "Counter",
    arguments: Buffer.alloc(0),
    resources: { CPU: 10_000 },
    placementGroupId: "",
    bundleIndex: -1,
    env: {},
    cwd: "",
    gpuVisibility: "assigned",
    concurrency: 1,
    concurrencyGroups: {},
    restartsMax: 0,
    restartWindowMs: 0,
    lifetime: "job",
    name: "",
    pendingCallsMax: 1_000,
    creationTimeoutMs: 60_000,
    nodeLabels: {},
    python: "",
    nodeId: "",
    ...overrides,
  };
}
