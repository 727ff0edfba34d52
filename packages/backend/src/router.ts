/** How an engine is picked. The names are sglang_router's; `least_in_flight` is ours alone. */
export const routerPolicies = ["round_robin", "random", "least_in_flight", "power_of_two", "consistent_hashing", "cache_aware"] as const;
export type RouterPolicy = (typeof routerPolicies)[number];

/** What an engine does of a request. With prefill and decode split, one of each answers it together. */
export type EngineRole =
  | { readonly kind: "regular" }
  /** `bootstrapPort`: where decode engines fetch the prompt's cache. */
  | { readonly kind: "prefill"; readonly bootstrapPort: number }
  | { readonly kind: "decode" };

export interface RouterWorker {
  readonly id: string;
  readonly url: string;
  readonly state: "healthy" | "unhealthy" | "fenced" | "draining";
  readonly inFlight: number;
  readonly weightVersion: number | null;
}

export interface RouterStats {
  readonly workers: readonly RouterWorker[];
  readonly requests: number;
  readonly failures: number;
  readonly retries: number;
}

/** The HTTP front of the engines, as the run drives it. */
export interface Router {
  readonly url: string;
  /** With `fenced`, nothing reaches the engine before `open`; without, it serves once a probe succeeded. */
  readonly add: (url: string, options?: { readonly fenced?: boolean; readonly role?: EngineRole }) => Promise<void>;
  readonly remove: (url: string) => Promise<void>;
  /** Lets nothing through to this engine until `open`. */
  readonly fence: (url: string) => Promise<void>;
  readonly open: (url: string, version: number) => Promise<void>;
  readonly drain: (url: string, timeoutMs: number) => Promise<void>;
  readonly stats: () => Promise<RouterStats>;
  readonly close: () => Promise<void>;
}
