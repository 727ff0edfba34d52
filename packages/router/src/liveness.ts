/**
 * Whether an engine works, from the bytes it sends, the probes it answers, and time.
 * V1: it is hung when a probe got no answer within its limit, none since, and nothing has come from it for `stallMs`. So neither a long
 * prefill (no bytes, but probes are answered) nor a busy loop (slow probes, but bytes come) makes an engine hung.
 */
export class Liveness {
  readonly #stallMs: number;
  #lastByteMs: number;
  #isSilent = false;

  /** @param nowMs counts as the last sign of life. */
  constructor(stallMs: number, nowMs: number) {
    this.#stallMs = stallMs;
    this.#lastByteMs = nowMs;
  }

  /** A byte came from it. */
  progressed(nowMs: number): void {
    this.#lastByteMs = nowMs;
  }

  /** A probe was answered. */
  answered(): void {
    this.#isSilent = false;
  }

  /** A probe's time ran out. */
  unanswered(): void {
    this.#isSilent = true;
  }

  /** It was allowed to be silent until now. */
  resumed(nowMs: number): void {
    this.#isSilent = false;
    this.#lastByteMs = nowMs;
  }

  get isSilent(): boolean {
    return this.#isSilent;
  }

  /** For how long nothing has come. */
  quietMs(nowMs: number): number {
    return nowMs - this.#lastByteMs;
  }

  /** Until nothing has come for `stallMs`; 0 or less: that is so now. */
  stalledInMs(nowMs: number): number {
    return this.#lastByteMs + this.#stallMs - nowMs;
  }
}
