/** What a fake engine is told. */
export type EngineOrder =
  | { readonly kind: "json"; readonly bytes: number; readonly delayMs: number }
  | { readonly kind: "stream"; readonly chunks: number; readonly overMs: number }
  | { readonly kind: "held" }
  | { readonly kind: "count" };

/** One closed loop: `clients` connections, each asking again as soon as it is answered. */
export interface LoadOrder {
  readonly port: number;
  readonly clients: number;
  readonly warmMs: number;
  /** Goes on, to ten times as long, until half as many answers came as there are clients: slow routers are measured too. */
  readonly windowMs: number;
  readonly stream: boolean;
  /** Whose CPU time is read at both ends of the window. */
  readonly pid: number;
  /** Each client asks once only, and the window ends with the last answer. */
  readonly once: boolean;
}

export interface LoadResult {
  readonly answered: number;
  readonly seconds: number;
  readonly cpuSeconds: number;
  /** Null without an answer. */
  readonly p50Ms: number | null;
  readonly p99Ms: number | null;
  readonly maxMs: number | null;
  /** Answers completed in each tenth of a second since the window began. */
  readonly perTenth: readonly number[];
  /** Requests that ended without a byte of an answer. */
  readonly lost: number;
  /** Answers that broke off without a word. */
  readonly brokenOff: number;
  /** Streams that ended in one error event, and in more than one. */
  readonly errorEvents: number;
  readonly errorEventsTwice: number;
  /** Answers with another status than 200. */
  readonly refused: number;
}
