import type { BackoffPolicy } from "@slime/core";

/** Every bound of the router. */
export interface RouterLimits {
  /** Requests that may wait because no engine may take them; one more is answered 503. */
  readonly waitingMax: number;
  /** How long a request waits for an engine before it is answered 503. */
  readonly waitMs: number;
  /** Bytes of a request's body, held until it is answered so that it can be sent again; more is answered 413. */
  readonly bodyBytesMax: number;
  /** Bytes of all bodies held; a request that would go above is answered 503. */
  readonly heldBytesMax: number;
  /** Tries of one request, the first included, and the pause between them when no untried engine is left. */
  readonly retry: BackoffPolicy;
  readonly probeEveryMs: number;
  /** So long a probe waits. SGLang's own takes a second at best. */
  readonly probeTimeoutMs: number;
  /** An engine that lets a probe wait too long is out once it has sent nothing for so long. */
  readonly stallMs: number;
  readonly connectTimeoutMs: number;
  /** Breaks before the first byte in a row after which an engine is out; a refused connection or a missed probe is enough by itself. */
  readonly brokenMax: number;
  /** A kept connection that closes within this time of a request had been closed by its server for being idle; later it is a break. */
  readonly staleMsMax: number;
  /** How long a fence waits for requests that are on their way to the engine. */
  readonly fenceMs: number;
  readonly workersMax: number;
  /** Engines asked at once by a call that goes to all of them, how long each may take, and how much of its answer is kept. */
  readonly fanOutMax: number;
  readonly fanOutMs: number;
  readonly fanOutBytesMax: number;
  /** Bytes of a body looked through for the prompt, and of the prompt compared (policy cache_aware). */
  readonly promptScanBytesMax: number;
  readonly promptBytesMax: number;
  /** Prompts of one request to a pair: each adds some 50 bytes to the body. */
  readonly pairBatchMax: number;
  /** Bytes of a prefill engine's refusal, which is held until it is known whose answer the client gets. */
  readonly refusalBytesMax: number;
  readonly closeMs: number;
}

export const defaultRouterLimits: RouterLimits = {
  waitingMax: 8_192,
  waitMs: 60_000,
  bodyBytesMax: 64 << 20,
  heldBytesMax: 2 ** 31,
  retry: { firstMs: 50, factor: 1.5, delayMsMax: 2_000, jitter: 0.2, triesMax: 5 },
  probeEveryMs: 2_000,
  probeTimeoutMs: 5_000,
  stallMs: 5_000,
  connectTimeoutMs: 2_000,
  brokenMax: 2,
  staleMsMax: 1_000,
  fenceMs: 5_000,
  workersMax: 1_024,
  fanOutMax: 64,
  fanOutMs: 30_000,
  fanOutBytesMax: 4 << 20,
  promptScanBytesMax: 64 << 10,
  promptBytesMax: 16 << 10,
  pairBatchMax: 8_192,
  refusalBytesMax: 64 << 10,
  closeMs: 2_000,
};
