/** A request as it goes to an engine: bytes untouched. */
export interface ForwardRequest {
  readonly id: string;
  readonly method: string;
  /** Path and query. */
  readonly path: string;
  /** Name, value, name, value, …: end-to-end headers only. */
  readonly headers: readonly string[];
  readonly body: Buffer | null;
}

/** Where an engine's answer goes. R1: at most one `begin`; nothing before it, nothing after `end` or `cut`. */
export interface ReplySink {
  /** Status and headers (pairs as above); `length`: the body's bytes as announced, null when they were not. */
  readonly begin: (status: number, headers: readonly string[], length: number | null) => void;
  /** The chunk is lent until the call returns: what is kept must be copied. False asks for a pause until `resume` is called. */
  readonly data: (chunk: Buffer, resume: () => void) => boolean;
  readonly end: () => void;
  /** The engine broke after the first byte. */
  readonly cut: (reason: string) => void;
}

/** How one try at one engine went. */
export type AttemptOutcome =
  | { readonly kind: "answered"; readonly status: number }
  /** A status that asks to try again; nothing was passed on. */
  | { readonly kind: "refused"; readonly status: number }
  /** No connection: the engine never saw it. */
  | { readonly kind: "unreachable"; readonly reason: string }
  /** A connection kept from an earlier request closed before the first byte: servers close idle ones, so it says nothing about the engine. */
  | { readonly kind: "stale"; readonly reason: string }
  /** Broke before the first byte. */
  | { readonly kind: "broken"; readonly reason: string }
  /** Broke after the first byte; the sink was told. */
  | { readonly kind: "cut"; readonly reason: string }
  /** It was cancelled before the first byte. */
  | { readonly kind: "abandoned" };

/** One try under way. */
export interface Attempt {
  /** Never rejects. */
  readonly outcome: Promise<AttemptOutcome>;
  /** Resolves when the request has left for the engine, or never will; null: it left at once. */
  readonly sent: Promise<void> | null;
  /** Gives it up: `abandoned` before the first byte, `cut` after. Nothing when it is over. */
  readonly cancel: () => void;
}

/**
 * Whether the one who asked still waits. A request is in one place at a time, so one listener is enough; an AbortSignal and its listeners
 * cost a fifth of what the whole request does.
 */
export class Presence {
  #left = false;
  #onLeave: (() => void) | null = null;

  get left(): boolean {
    return this.#left;
  }

  /** Replaces whoever was told before; null: nobody. Called at once when the client has left already. */
  watch(onLeave: (() => void) | null): void {
    this.#onLeave = onLeave;
    if (this.#left) onLeave?.();
  }

  /** The client is gone. Idempotent. */
  leave(): void {
    if (this.#left) return;
    this.#left = true;
    this.#onLeave?.();
  }
}

/** How bytes reach engines. The seam under the routing logic: sockets, and a double in tests. Nothing here throws; failures are outcomes. */
export interface Transport {
  /** @param passRefusals pass a retryable status on instead of reporting it: the last try. */
  readonly send: (url: string, request: ForwardRequest, sink: ReplySink, passRefusals: boolean) => Attempt;
  readonly probe: (
    url: string,
    options: { readonly timeoutMs: number; readonly version: boolean },
  ) => Promise<{ readonly ok: true; readonly found: string | null } | { readonly ok: false; readonly reason: string }>;
  /** Lets go of what is kept for this engine. */
  readonly forget: (url: string) => void;
  readonly close: () => Promise<void>;
}

/** Statuses that say "not now, or not here": another engine, or a later try, may answer. A 500 is a fact about the request and is passed on. */
export const retryableStatuses: ReadonlySet<number> = new Set([429, 502, 503, 504]);
