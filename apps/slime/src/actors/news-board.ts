import type { EngineNews } from "./engine-protocol.js";

/** The newest word on an engine, and who waits for the next. */
export class NewsBoard {
  #news: EngineNews = { seq: 0, phase: "new", health: { kind: "healthy", reason: "" } };
  #waiters: ((news: EngineNews) => void)[] = [];

  /** Says what changed; what is said again as it was wakes nobody. */
  say(change: Partial<Pick<EngineNews, "phase" | "health">>): void {
    const { phase = this.#news.phase, health = this.#news.health } = change;
    if (phase === this.#news.phase && health.kind === this.#news.health.kind) return;
    this.#news = { seq: this.#news.seq + 1, phase, health };
    for (const wake of this.#waiters.splice(0)) wake(this.#news);
  }

  /** What is newer than `seen`: at once, or when it is said. Only the newest is kept. */
  after(seen: number): Promise<EngineNews> {
    if (this.#news.seq > seen) return Promise.resolve(this.#news);
    return new Promise((resolve) => this.#waiters.push(resolve));
  }
}
