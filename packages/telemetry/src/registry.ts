import { Counter, Gauge, Histogram, Registry } from "prom-client";
import { type ClusterMetric, clusterMetrics } from "./metric-names.js";

export interface ClusterRegistry {
  /** Sets a gauge. */
  readonly set: (metric: ClusterMetric, value: number, labels?: Readonly<Record<string, string>>) => void;
  /** Adds to a counter. */
  readonly add: (metric: ClusterMetric, value: number, labels?: Readonly<Record<string, string>>) => void;
  /** Records one value of a histogram. */
  readonly observe: (metric: ClusterMetric, value: number) => void;
  /** Forgets a gauge's label sets, before they are set anew: what is gone must not be scraped. */
  readonly clear: (metric: ClusterMetric) => void;
  /** Prometheus's text format. */
  readonly text: () => Promise<string>;
  readonly contentType: string;
}

/** A Prometheus registry with every cluster metric declared; names come from `clusterMetrics` alone. */
export function clusterRegistry(): ClusterRegistry {
  const registry = new Registry();
  const made = new Map<string, Gauge | Counter | Histogram>();
  for (const [name, [kind, help, labelNames]] of Object.entries(clusterMetrics)) {
    const config = { name, help, labelNames: [...labelNames], registers: [registry] };
    made.set(
      name,
      kind === "gauge"
        ? new Gauge(config)
        : kind === "counter"
          ? new Counter(config)
          : new Histogram({ ...config, buckets: [0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.1, 0.5, 2] }),
    );
  }
  const metric = <M extends Gauge | Counter | Histogram>(name: ClusterMetric, kind: abstract new (...args: never[]) => M): M => {
    const found = made.get(name);
    if (!(found instanceof kind)) throw new TypeError(`${name} is a ${clusterMetrics[name][0]}`);
    return found;
  };
  return {
    set: (name, value, labels = {}) => metric(name, Gauge<string>).set(labels, value),
    add: (name, value, labels = {}) => metric(name, Counter<string>).inc(labels, value),
    observe: (name, value) => metric(name, Histogram<string>).observe(value),
    clear: (name) => metric(name, Gauge<string>).reset(),
    text: () => registry.metrics(),
    contentType: registry.contentType,
  };
}
