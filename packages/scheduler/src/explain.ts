import type { ClusterView, NodeView } from "./cluster-view.js";
import { compareNodes } from "./rank-order.js";
import { formatAmount, formatResources, type Resources, sumResources } from "./resources.js";

/** Names in one sentence at most; the rest is counted. */
const namedMax = 4;

/** For each resource whose sum is short of `wanted`: the numbers, and who holds what of it. `of` says short against what. */
export function shortages(view: ClusterView, wanted: Resources, of: "total" | "free"): readonly string[] {
  const nodes = of === "free" ? view.nodes.filter((node) => node.schedulable) : view.nodes;
  const have = sumResources(nodes.map((node) => node[of]));
  const total = sumResources(view.nodes.map((node) => node.total));
  const lines: string[] = [];
  for (const [name, amount] of Object.entries(wanted)) {
    if (amount <= (have[name] ?? 0)) continue;
    const where = nodes.filter((node) => (node.total[name] ?? 0) > 0).sort(compareNodes);
    const numbers =
      of === "total"
        ? `${name}: ${formatAmount(amount)} wanted, the cluster has ${formatAmount(total[name] ?? 0)} in all${listed(where.map((node) => `${node.nodeId} ${formatAmount(node.total[name] ?? 0)}`))}`
        : `${name}: ${formatAmount(amount)} wanted, ${formatAmount(have[name] ?? 0)} of ${formatAmount(total[name] ?? 0)} free`;
    lines.push(numbers + heldBy(view, name));
  }
  return lines;
}

/** `; held by actor a 1, placement group b 2`, largest first; empty when nobody holds any of it. */
export function heldBy(view: ClusterView, name: string, nodeId?: string): string {
  const amounts = new Map<string, number>();
  for (const holder of view.holders) {
    const amount = holder.resources[name] ?? 0;
    if (amount > 0 && (nodeId === undefined || holder.nodeId === nodeId))
      amounts.set(holder.what, (amounts.get(holder.what) ?? 0) + amount);
  }
  if (amounts.size === 0) return "";
  const sorted = [...amounts].sort(([a, x], [b, y]) => y - x || (a < b ? -1 : 1));
  return `; held by ${listText(sorted.map(([what, amount]) => `${what} ${formatAmount(amount)}`))}`;
}

/** What each node offers, for a demand that fits none of them: `node_a: GPU 1, CPU 2`. */
export function offers(nodes: readonly NodeView[], demand: Resources, of: "total" | "free"): string {
  const names = Object.keys(demand);
  const sorted = [...nodes].sort(compareNodes);
  return listText(
    sorted.map(
      (node) =>
        `${node.nodeId} has ${formatResources(Object.fromEntries(names.map((name) => [name, node[of][name] ?? 0])))}${of === "free" ? " free" : ""}`,
    ),
  );
}

/** Items as a phrase, the first few by name and the rest by number: a message of a large cluster stays one line. */
export function listText(items: readonly string[]): string {
  return items.length <= namedMax ? items.join(", ") : `${items.slice(0, namedMax).join(", ")} and ${items.length - namedMax} more`;
}

function listed(items: readonly string[]): string {
  return items.length === 0 ? "" : ` (${listText(items)})`;
}
