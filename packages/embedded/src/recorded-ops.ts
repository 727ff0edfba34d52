/** Results kept for repeats. One op is in flight at a time, so a repeat is of a recent one. */
const recordedOpsMax = 32;

/**
 * B2: an op that is asked for again, under the id it had, answers with the result it gave and does nothing.
 * A failed op leaves no record: it changed nothing, so a repeat is a new try.
 */
export class RecordedOps {
  readonly #results = new Map<string, Promise<unknown>>();

  run<T>(opId: string, work: () => Promise<T>): Promise<T> {
    const known = this.#results.get(opId);
    if (known !== undefined) return known as Promise<T>;
    const result = work();
    this.#results.set(opId, result);
    result.catch(() => this.#results.delete(opId));
    for (const oldest of this.#results.keys()) {
      if (this.#results.size <= recordedOpsMax) break;
      this.#results.delete(oldest);
    }
    return result;
  }
}
