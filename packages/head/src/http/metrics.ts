import { type ClusterMetric, type ClusterRegistry, clusterRegistry } from "@slime/telemetry";
import type { Head } from "../head-api.js";
import { nodesJson } from "./state-json.js";

/** Gauges that are set anew with every scrape. */
const scraped: readonly ClusterMetric[] = [
  "slime_nodes",
  "slime_actors",
  "slime_placement_groups",
  "slime_jobs",
  "slime_resource_total",
  "slime_resource_used",
  "slime_node_silent_seconds",
  "slime_node_loop_lag_seconds",
  "slime_node_cpu_fraction",
  "slime_node_memory_free_bytes",
  "slime_node_store_bytes",
  "slime_gpu_utilisation",
  "slime_gpu_memory_used_bytes",
  "slime_gpu_power_watts",
];

/** The registry of one head; counters and histograms are fed as things happen. */
export const headRegistry = (): ClusterRegistry => clusterRegistry();

/** Sets the gauges from the head's state and returns Prometheus's text. */
export async function scrape(head: Head, registry: ClusterRegistry): Promise<string> {
  for (const metric of scraped) registry.clear(metric);
  const { state } = head;
  registry.set("slime_head_epoch", head.epoch);
  count(registry, "slime_nodes", state.nodes.values());
  count(registry, "slime_actors", state.actors.values());
  count(registry, "slime_placement_groups", state.groups.values());
  count(registry, "slime_jobs", state.jobs.values());
  const totals = new Map<string, { total: number; used: number }>();
  for (const node of nodesJson(state, head.nowMs())) {
    if (node.state !== "ALIVE" && node.state !== "SUSPECT") continue;
    for (const [name, total] of Object.entries(node.resources)) {
      const sum = totals.get(name) ?? { total: 0, used: 0 };
      totals.set(name, { total: sum.total + total, used: sum.used + total - (node.available[name] ?? 0) });
    }
    const labels = { node: node.node_id };
    registry.set("slime_node_silent_seconds", node.silent_ms / 1_000, labels);
    if (node.loop_lag_ms !== null) registry.set("slime_node_loop_lag_seconds", node.loop_lag_ms / 1_000, labels);
    if (node.cpu_fraction !== null) registry.set("slime_node_cpu_fraction", node.cpu_fraction, labels);
    if (node.memory_free_mib !== null) registry.set("slime_node_memory_free_bytes", node.memory_free_mib * 1_048_576, labels);
    registry.set("slime_node_store_bytes", state.links.get(node.node_id)?.heartbeat?.storeBytesUsed ?? 0, labels);
    for (const gpu of node.gpus) {
      const which = { ...labels, gpu: String(gpu.index) };
      if (gpu.utilisation !== null) registry.set("slime_gpu_utilisation", gpu.utilisation, which);
      if (gpu.memory_used_mib !== null) registry.set("slime_gpu_memory_used_bytes", gpu.memory_used_mib * 1_048_576, which);
      if (gpu.power_watts !== null) registry.set("slime_gpu_power_watts", gpu.power_watts, which);
    }
  }
  for (const [resource, { total, used }] of totals) {
    registry.set("slime_resource_total", total, { resource });
    registry.set("slime_resource_used", used, { resource });
  }
  return registry.text();
}

function count(registry: ClusterRegistry, metric: ClusterMetric, records: Iterable<{ readonly state: string }>): void {
  const counts = new Map<string, number>();
  for (const { state } of records) counts.set(state, (counts.get(state) ?? 0) + 1);
  for (const [state, value] of counts) registry.set(metric, value, { state });
}
