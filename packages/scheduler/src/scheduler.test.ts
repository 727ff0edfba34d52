import fc from "fast-check";
import { describe, expect, test } from "vitest";
import type { ClusterView, GroupRequest, NodeView, PlacedBundle, Resources } from "./index.js";
import {
  compareAddresses,
  compareRanks,
  formatResources,
  placeActor,
  placeGroup,
  placeInBundle,
  resourcesFrom,
  strategies,
  sumResources,
} from "./index.js";

function node(
  id: string,
  total: Record<string, number>,
  options: {
    free?: readonly number[];
    freeCpu?: number;
    address?: string;
    schedulable?: boolean;
    labels?: Record<string, string>;
    load?: number;
  } = {},
): NodeView {
  const units = resourcesFrom(total);
  const gpus = Array.from({ length: total["GPU"] ?? 0 }, (_, index) => ({
    index,
    uuid: `${id}-gpu-${index}`,
    free: (options.free?.[index] ?? 1) * 10_000,
  }));
  const free = {
    ...units,
    ...(gpus.length > 0 ? { GPU: gpus.reduce((sum, gpu) => sum + gpu.free, 0) } : {}),
    ...(options.freeCpu === undefined ? {} : { CPU: options.freeCpu * 10_000 }),
  };
  return {
    nodeId: id,
    address: options.address ?? "127.0.0.1",
    total: units,
    free,
    gpus,
    labels: options.labels ?? {},
    schedulable: options.schedulable ?? true,
    load: options.load ?? 0,
  };
}
const view = (...nodes: NodeView[]): ClusterView => ({ nodes, holders: [] });
const gpus = (...counts: number[]): Resources[] => counts.map((GPU) => resourcesFrom({ GPU, CPU: 1 }));
const where = (bundles: readonly PlacedBundle[]) =>
  bundles.map((bundle) => `${bundle.bundle}@${bundle.nodeId}:${bundle.gpuIndices.join("+")}`);

describe("placement groups", () => {
  const two = view(node("a", { GPU: 4, CPU: 8 }, { address: "10.0.0.10" }), node("b", { GPU: 4, CPU: 8 }, { address: "10.0.0.9" }));
  const cases: readonly (readonly [string, ClusterView, GroupRequest, readonly string[] | "waiting" | "infeasible"])[] = [
    ["PACK takes one node, the lower address first", two, { bundles: gpus(1, 1), strategy: "PACK" }, ["0@b:0", "1@b:1"]],
    ["PACK spills over", two, { bundles: gpus(1, 1, 1, 1, 1), strategy: "PACK" }, ["0@b:0", "1@b:1", "2@b:2", "3@b:3", "4@a:0"]],
    [
      "PACK prefers the node that takes all",
      view(node("a", { GPU: 1, CPU: 8 }), node("b", { GPU: 2, CPU: 8 })),
      { bundles: gpus(1, 1), strategy: "PACK" },
      ["0@b:0", "1@b:1"],
    ],
    ["SPREAD takes as many as there are", two, { bundles: gpus(1, 1), strategy: "SPREAD" }, ["0@b:0", "1@a:0"]],
    [
      "STRICT_SPREAD finds the matching that greed misses",
      view(node("a", { GPU: 2, CPU: 4 }), node("b", { GPU: 1, CPU: 4, disk: 1 })),
      { bundles: [resourcesFrom({ GPU: 1 }), resourcesFrom({ GPU: 1, disk: 1 })], strategy: "STRICT_SPREAD" },
      ["0@a:0", "1@b:0"],
    ],
    ["STRICT_SPREAD over too few nodes", two, { bundles: gpus(1, 1, 1), strategy: "STRICT_SPREAD" }, "infeasible"],
    ["STRICT_PACK beyond any node", two, { bundles: gpus(3, 3), strategy: "STRICT_PACK" }, "infeasible"],
    [
      "STRICT_PACK that would fit an empty node",
      view(node("a", { GPU: 2, CPU: 4 }, { free: [1, 0] })),
      { bundles: gpus(1, 1), strategy: "STRICT_PACK" },
      "waiting",
    ],
    ["more than the cluster has", two, { bundles: gpus(4, 4, 1), strategy: "PACK" }, "infeasible"],
    [
      "shares pin to one device, the fullest with room",
      view(node("a", { GPU: 2, CPU: 4 }, { free: [1, 0.5] })),
      { bundles: [resourcesFrom({ GPU: 0.4 }), resourcesFrom({ GPU: 1 })], strategy: "PACK" },
      ["1@a:0", "0@a:1"],
    ],
    [
      "a share never straddles devices",
      view(node("a", { GPU: 2, CPU: 4 }, { free: [0.3, 0.3] })),
      { bundles: [resourcesFrom({ GPU: 0.6 })], strategy: "PACK" },
      "waiting",
    ],
    ["1.5 GPUs cannot be pinned", two, { bundles: [resourcesFrom({ GPU: 1.5 })], strategy: "PACK" }, "infeasible"],
    [
      "CPU bundles leave GPU nodes alone",
      view(node("a", { GPU: 1, CPU: 4 }), node("b", { CPU: 4 })),
      { bundles: [resourcesFrom({ CPU: 1 })], strategy: "STRICT_PACK" },
      ["0@b:"],
    ],
    [
      "a silent node counts for what could be, not for what is",
      view(node("a", { GPU: 1, CPU: 1 }, { schedulable: false })),
      { bundles: gpus(1), strategy: "PACK" },
      "waiting",
    ],
    ["no node at all waits", view(), { bundles: gpus(1), strategy: "PACK" }, "waiting"],
  ];
  test.each(cases)("%s", (_name, cluster, request, wanted) => {
    const plan = placeGroup(cluster, request);
    if (typeof wanted === "string") expect(plan.kind).toBe(wanted);
    else expect(plan.kind === "placed" ? where(plan.bundles) : plan).toEqual(wanted);
  });

  test("an impossible wish names the numbers and who holds what", () => {
    const cluster: ClusterView = {
      nodes: [node("node_a", { GPU: 2, CPU: 4 }, { free: [0, 1] })],
      holders: [{ what: "actor engine-0", nodeId: "node_a", resources: resourcesFrom({ GPU: 1 }) }],
    };
    expect(placeGroup(cluster, { bundles: gpus(1, 1, 1), strategy: "PACK" })).toEqual({
      kind: "infeasible",
      reasons: ["GPU: 3 wanted, the cluster has 2 in all (node_a 2); held by actor engine-0 1"],
    });
    expect(placeGroup(cluster, { bundles: gpus(1, 1), strategy: "PACK" })).toEqual({
      kind: "waiting",
      reasons: ["GPU: 2 wanted, 1 of 2 free; held by actor engine-0 1"],
    });
  });

  test("kept bundles stay, STRICT_SPREAD avoids their nodes", () => {
    const cluster = view(node("a", { GPU: 2, CPU: 4 }, { free: [0, 1] }), node("b", { GPU: 1, CPU: 4 }));
    const kept: PlacedBundle = {
      bundle: 0,
      nodeId: "a",
      address: "127.0.0.1",
      resources: gpus(1)[0] ?? {},
      gpuIndices: [0],
      gpuUuids: ["a-gpu-0"],
    };
    const plan = placeGroup(cluster, { bundles: gpus(1, 1), strategy: "STRICT_SPREAD", kept: [kept] });
    expect(plan.kind === "placed" ? where(plan.bundles) : plan).toEqual(["0@a:0", "1@b:0"]);
  });
});

test("addresses order as numbers, names after them", () => {
  expect(["host-b", "10.0.0.10", "9.255.0.1", "10.0.0.9", "host-a"].sort(compareAddresses)).toEqual([
    "9.255.0.1",
    "10.0.0.9",
    "10.0.0.10",
    "host-a",
    "host-b",
  ]);
});

describe("actors", () => {
  const cluster = view(node("a", { GPU: 2, CPU: 4 }, { free: [0.5, 1], labels: { zone: "x" } }), node("b", { CPU: 4 }, { freeCpu: 1 }));
  test("CPU actors avoid GPU nodes, shares pack, labels and affinity bind", () => {
    expect(placeActor(cluster, { resources: resourcesFrom({ CPU: 1 }), labels: {}, nodeId: null })).toEqual({
      kind: "placed",
      nodeId: "b",
      gpuIndices: [],
    });
    expect(placeActor(cluster, { resources: resourcesFrom({ CPU: 2 }), labels: {}, nodeId: null })).toEqual({
      kind: "placed",
      nodeId: "a",
      gpuIndices: [],
    });
    expect(placeActor(cluster, { resources: resourcesFrom({ GPU: 0.4 }), labels: {}, nodeId: null })).toEqual({
      kind: "placed",
      nodeId: "a",
      gpuIndices: [0],
    });
    expect(placeActor(cluster, { resources: resourcesFrom({ CPU: 1 }), labels: { zone: "x" }, nodeId: null })).toMatchObject({
      nodeId: "a",
    });
    expect(placeActor(cluster, { resources: resourcesFrom({ CPU: 2 }), labels: {}, nodeId: "b" }).kind).toBe("waiting");
    expect(placeActor(cluster, { resources: resourcesFrom({ CPU: 9 }), labels: {}, nodeId: null }).kind).toBe("infeasible");
    expect(placeActor(cluster, { resources: {}, labels: { zone: "y" }, nodeId: null }).kind).toBe("infeasible");
    expect(placeActor(cluster, { resources: {}, labels: {}, nodeId: "gone" }).kind).toBe("infeasible");
  });
  test("those that ask for nothing balance by load", () => {
    expect(
      placeActor(view(node("a", { CPU: 1 }, { load: 3 }), node("b", { CPU: 1 }, { load: 1 })), { resources: {}, labels: {}, nodeId: null }),
    ).toMatchObject({ nodeId: "b" });
  });
  test("inside a bundle: shares of its own GPU only", () => {
    const bundle: PlacedBundle = {
      bundle: 0,
      nodeId: "a",
      address: "127.0.0.1",
      resources: resourcesFrom({ GPU: 1, CPU: 2 }),
      gpuIndices: [3],
      gpuUuids: ["u"],
    };
    const share = resourcesFrom({ GPU: 0.4 });
    const use = { bundle: 0, resources: share, gpuIndices: [3] };
    expect(placeInBundle([bundle], [use], share, -1)).toMatchObject({ kind: "placed", gpuIndices: [3] });
    expect(placeInBundle([bundle], [use, use], share, 0).kind).toBe("waiting");
    expect(placeInBundle([bundle], [], resourcesFrom({ GPU: 2 }), 0).kind).toBe("infeasible");
    expect(placeInBundle([bundle], [], share, 4).kind).toBe("infeasible");
  });
});

const arbitraryNode = fc.record({
  gpus: fc.array(fc.constantFrom(0, 3_000, 5_000, 10_000), { maxLength: 3 }),
  cpu: fc.integer({ min: 0, max: 4 }),
  octet: fc.integer({ min: 1, max: 12 }),
});
const arbitraryCluster = fc
  .array(arbitraryNode, { minLength: 1, maxLength: 3 })
  .map((nodes) =>
    view(
      ...nodes.map(({ gpus: free, cpu, octet }, i) =>
        node(
          `n${i}`,
          { GPU: free.length, CPU: 4 },
          { free: free.map((amount) => amount / 10_000), freeCpu: cpu, address: `10.0.0.${octet}` },
        ),
      ),
    ),
  );
const arbitraryBundles = fc.array(
  fc.record({ GPU: fc.constantFrom(0, 3_000, 5_000, 10_000, 20_000), CPU: fc.constantFrom(0, 10_000, 20_000) }),
  { minLength: 1, maxLength: 4 },
);

describe("invariants", () => {
  test("S3, S2: a plan fits what was free, devices distinct, shares on one device (never double-booked)", () => {
    fc.assert(
      fc.property(arbitraryCluster, arbitraryBundles, fc.constantFrom(...strategies), (cluster, bundles, strategy) => {
        const plan = placeGroup(cluster, { bundles, strategy });
        if (plan.kind !== "placed") {
          expect(plan.reasons.length).toBeGreaterThan(0);
          return;
        }
        expect(plan.bundles.map((bundle) => bundle.bundle).sort()).toEqual(bundles.map((_, i) => i));
        expect([...plan.bundles].sort(compareRanks)).toEqual(plan.bundles);
        for (const host of cluster.nodes) {
          const here = plan.bundles.filter((bundle) => bundle.nodeId === host.nodeId);
          const sum = sumResources(here.map((bundle) => bundle.resources));
          for (const [name, amount] of Object.entries(sum)) expect(amount).toBeLessThanOrEqual(host.free[name] ?? 0);
          for (const gpu of host.gpus) {
            const used = here
              .filter((bundle) => bundle.gpuIndices.includes(gpu.index))
              .reduce((total, bundle) => total + Math.min(10_000, bundle.resources["GPU"] ?? 0), 0);
            expect(used).toBeLessThanOrEqual(gpu.free);
          }
        }
        for (const bundle of plan.bundles) expect(bundle.gpuIndices.length).toBe(Math.ceil((bundle.resources["GPU"] ?? 0) / 10_000));
        const nodes = new Set(plan.bundles.map((bundle) => bundle.nodeId)).size;
        if (strategy === "STRICT_PACK") expect(nodes).toBe(1);
        if (strategy === "STRICT_SPREAD") expect(nodes).toBe(bundles.length);
      }),
      { numRuns: 400, seed: 7 },
    );
  });

  test("S4: equal inputs, equal plans; the order of nodes does not matter", () => {
    fc.assert(
      fc.property(arbitraryCluster, arbitraryBundles, fc.constantFrom(...strategies), (cluster, bundles, strategy) => {
        const turned = { ...cluster, nodes: [...cluster.nodes].reverse() };
        expect(placeGroup(turned, { bundles, strategy })).toEqual(placeGroup(cluster, { bundles, strategy }));
      }),
      { numRuns: 200, seed: 8 },
    );
  });

  test("S5: what is called infeasible fits no assignment of bundles to empty nodes; what waits without shares fits none to free ones", () => {
    fc.assert(
      fc.property(arbitraryCluster, arbitraryBundles, fc.constantFrom(...strategies), (cluster, bundles, strategy) => {
        const plan = placeGroup(cluster, { bundles, strategy });
        const whole = bundles.every((bundle) => bundle.GPU % 10_000 === 0);
        if (plan.kind === "infeasible") expect(fits(cluster, bundles, strategy, true), formatResources(sumResources(bundles))).toBe(false);
        if (plan.kind === "waiting" && whole) expect(fits(cluster, bundles, strategy, false)).toBe(false);
      }),
      { numRuns: 400, seed: 9 },
    );
  });
});

/** Brute force over every assignment of bundles to nodes and of shares to devices. */
function fits(
  cluster: ClusterView,
  bundles: readonly { readonly GPU: number; readonly CPU: number }[],
  strategy: string,
  empty: boolean,
): boolean {
  const nodes = cluster.nodes.map((host) => ({
    cpu: (empty ? host.total["CPU"] : host.free["CPU"]) ?? 0,
    gpus: host.gpus.map((gpu) => (empty ? 10_000 : gpu.free)),
    uses: 0,
  }));
  const place = (at: number): boolean => {
    const bundle = bundles[at];
    if (bundle === undefined) return true;
    return nodes.some((host, i) => {
      if (host.cpu < bundle.CPU) return false;
      if (strategy === "STRICT_SPREAD" && host.uses > 0) return false;
      if (strategy === "STRICT_PACK" && nodes.some((other, j) => j !== i && other.uses > 0)) return false;
      return choices(host.gpus, bundle.GPU).some((devices) => {
        const amount = Math.min(bundle.GPU, 10_000);
        for (const device of devices) host.gpus[device] = (host.gpus[device] ?? 0) - amount;
        host.cpu -= bundle.CPU;
        host.uses++;
        const done = place(at + 1);
        for (const device of devices) host.gpus[device] = (host.gpus[device] ?? 0) + amount;
        host.cpu += bundle.CPU;
        host.uses--;
        return done;
      });
    });
  };
  return place(0);
}

function choices(free: readonly number[], amount: number): readonly (readonly number[])[] {
  if (amount === 0) return [[]];
  const open = free.flatMap((value, i) => (value >= Math.min(amount, 10_000) ? [i] : []));
  if (amount <= 10_000) return open.map((i) => [i]);
  return open.length >= amount / 10_000 ? [open.slice(0, amount / 10_000)] : [];
}
