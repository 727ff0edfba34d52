/** Records by id, with the ids of those that share a property kept beside them, so that nobody walks ten thousand dead actors. */
export class Table<R> {
  readonly #records = new Map<string, R>();
  readonly #indexes: readonly {
    readonly name: string;
    readonly key: (record: R) => string | null;
    readonly ids: Map<string, Set<string>>;
  }[];

  constructor(indexes: Readonly<Record<string, (record: R) => string | null>> = {}) {
    this.#indexes = Object.entries(indexes).map(([name, key]) => ({ name, key, ids: new Map() }));
  }

  get size(): number {
    return this.#records.size;
  }

  get(id: string): R | undefined {
    return this.#records.get(id);
  }

  /** Sets or, with undefined, removes. @returns what was there. */
  put(id: string, record: R | undefined): R | undefined {
    const before = this.#records.get(id);
    for (const { key, ids } of this.#indexes) {
      const from = before === undefined ? null : key(before);
      const to = record === undefined ? null : key(record);
      if (from === to) continue;
      if (from !== null) {
        const set = ids.get(from);
        set?.delete(id);
        if (set?.size === 0) ids.delete(from);
      }
      if (to !== null) {
        const set = ids.get(to) ?? new Set();
        ids.set(to, set.add(id));
      }
    }
    if (record === undefined) this.#records.delete(id);
    else this.#records.set(id, record);
    return before;
  }

  keys(): readonly string[] {
    return [...this.#records.keys()];
  }

  values(): IterableIterator<R> {
    return this.#records.values();
  }

  /** The records whose index `name` is `key`; a copy, safe to change the table under. */
  where(name: string, key: string): readonly R[] {
    const ids = this.#indexes.find((index) => index.name === name)?.ids.get(key);
    if (ids === undefined) return [];
    const found: R[] = [];
    for (const id of ids) {
      const record = this.#records.get(id);
      if (record !== undefined) found.push(record);
    }
    return found;
  }

  count(name: string, key: string): number {
    return this.#indexes.find((index) => index.name === name)?.ids.get(key)?.size ?? 0;
  }
}
