import type { ExportedWeights } from "./trainer.js";

/** Where one engine stands in a push. W1: an engine serves only at `open`; W2: it opens only at the version committed last. */
export type EnginePushState = "open" | "fenced" | "paused" | "received" | "verified" | "committed" | "quarantined";

/** The router's side of a push. */
export interface Fence {
  /** No new request reaches this engine; returns once that holds. */
  readonly close: (url: string) => Promise<void>;
  /** Requests flow again, and say they come from weights `version`. */
  readonly open: (url: string, version: number) => Promise<void>;
}

export interface PushReport {
  readonly version: number;
  readonly engines: readonly { readonly url: string; readonly state: EnginePushState; readonly reason: string | null }[];
  readonly bytes: number;
  readonly transferMs: number;
  /** All of the push that is not the transfer itself. */
  readonly controlMs: number;
}

/** begin(version) → send ‖ receive → verify → commit | abort. */
export interface WeightSync {
  readonly push: (request: { readonly version: number; readonly opId: string; readonly timeoutMs: number }) => Promise<PushReport>;
  /** Brings one (re)started engine to `version`, from what was exported last or anew. */
  readonly catchUp: (request: { readonly url: string; readonly version: number; readonly timeoutMs: number }) => Promise<PushReport>;
  readonly lastExport: () => ExportedWeights | null;
}
