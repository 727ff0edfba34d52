import type { Stay } from "./stays.js";
import type { AttemptOutcome, ReplySink } from "./transport.js";

/** Holds a reply instead of passing it on. */
export class HeldReply implements ReplySink {
  readonly #bytesMax: number;
  #head: { readonly status: number; readonly headers: readonly string[]; readonly length: number | null } | null = null;
  #chunks: Buffer[] = [];
  #bytes = 0;
  #isWhole = false;

  /** @param bytesMax what is longer is not kept. */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  begin(status: number, headers: readonly string[], length: number | null): void {
    this.#head = { status, headers, length };
  }

  data(chunk: Buffer): boolean {
    this.#bytes += chunk.length;
    if (this.#bytes > this.#bytesMax || (this.#head?.status ?? 0) < 400) this.#chunks = [];
    else this.#chunks.push(Buffer.from(chunk));
    return true;
  }

  end(): void {
    this.#isWhole = true;
  }

  cut(): void {
    this.#chunks = [];
  }

  /** Passes the reply on if it is whole and was kept. */
  passTo(sink: ReplySink): boolean {
    if (this.#head === null || !this.#isWhole || this.#bytes > this.#bytesMax) return false;
    sink.begin(this.#head.status, this.#head.headers, this.#head.length);
    for (const chunk of this.#chunks) sink.data(chunk, () => {});
    sink.end();
    return true;
  }
}

/** How a pair's try went: its outcome, and whose it is. */
export interface PairOutcome {
  readonly outcome: AttemptOutcome;
  readonly by: "prefill" | "decode";
}

/**
 * Waits for both halves of a try at a pair. D1: the decode engine's answer is the pair's, unless the prefill engine fails before it is whole:
 * then the decode engine is let go and the failure is the pair's. D2: when the decode engine fails, the prefill engine is let go.
 * A prefill engine's own refusal comes out as `answered` by it; the caller passes on what was held.
 */
export async function pairOutcome(prefill: Stay, decode: Stay): Promise<PairOutcome> {
  const failed = prefill.outcome.then((outcome) => (isGood(outcome) ? decode.outcome.then(() => null) : outcome));
  const failure = await Promise.race([decode.outcome.then(() => null), failed]);
  if (failure === null) {
    const outcome = await decode.outcome;
    // What the prefill engine still does is in vain when its partner failed, and ends by itself otherwise.
    if (!isGood(outcome)) prefill.release();
    return { outcome, by: "decode" };
  }
  decode.release();
  const outcome = await decode.outcome;
  if (outcome.kind === "answered") return { outcome, by: "decode" };
  if (outcome.kind === "cut") return { outcome: { kind: "cut", reason: `its prefill engine failed: ${reasonOf(failure)}` }, by: "prefill" };
  return { outcome: failure.kind === "cut" ? { ...failure, kind: "broken" } : failure, by: "prefill" };
}

function isGood(outcome: AttemptOutcome): boolean {
  return outcome.kind === "answered" && outcome.status < 400;
}

function reasonOf(outcome: AttemptOutcome): string {
  return "reason" in outcome ? outcome.reason : outcome.kind === "abandoned" ? "it stopped answering" : `status ${outcome.status}`;
}
