import type { PauseMode, WeightSpan } from "@slime/backend";

/** Versions remembered; a request that crosses more pushes than this has long been given up. */
const versionsMax = 256;

/**
 * Our own record of pushes that requests may cross, for servers that name one version a reply.
 * X1: a request between whose start and end no such push was under way is of one version. X2: where a server computes ahead, the first token
 * said after a push in place may have been computed before it, so it is `mixed`, under the older version.
 */
export class WeightCrossings {
  readonly #overlap: boolean;
  readonly #inPlace = new Set<number>();
  #begun = 0;
  #ended = 0;

  /** @param overlap The server reads a step while it computes the next. */
  constructor(overlap: boolean) {
    this.#overlap = overlap;
  }

  /** A push begins. Unless requests are held by a pause, none crosses it: a server lets them end, or ends them, first. */
  begin(pause: PauseMode | null, version: number): void {
    if (pause !== "retract" && pause !== "in_place") return;
    this.#begun++;
    if (pause === "in_place") this.#inPlace.add(version);
    if (this.#inPlace.size > versionsMax) this.#inPlace.delete([...this.#inPlace][0] ?? version);
  }

  end(pause: PauseMode | null): void {
    if (pause === "retract" || pause === "in_place") this.#ended++;
  }

  /** What to ask `crossed` with, once the request has ended. */
  get mark(): number {
    return this.#ended;
  }

  /** Whether a push was under way since the mark was taken. */
  crossed(mark: number): boolean {
    return this.#begun !== mark;
  }

  /** X2, over spans counted from a stream. */
  soften(spans: readonly WeightSpan[]): readonly WeightSpan[] {
    if (!this.#overlap) return spans;
    return spans.flatMap((span, i) => {
      const before = spans[i - 1];
      if (before === undefined || before.mixed || span.mixed || !this.#inPlace.has(span.version)) return [span];
      const first = { version: before.version, from: span.from, to: span.from + 1, mixed: true };
      return span.to - span.from === 1 ? [first] : [first, { ...span, from: first.to }];
    });
  }
}
