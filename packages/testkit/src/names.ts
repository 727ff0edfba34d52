import type { EventFields, EventName } from "@slime/telemetry";

/** Short names of a simulation's ids, so that traces and transcripts read. */
export class Names {
  readonly #byId = new Map<string, string>();
  readonly #byName = new Map<string, string>();

  set(id: string, name: string): void {
    this.#byId.set(id, name);
    this.#byName.set(name, id);
  }

  has(name: string): boolean {
    return this.#byName.has(name);
  }

  /** @throws RangeError for a name nobody has. */
  idOf(name: string): string {
    const id = this.#byName.get(name);
    if (id === undefined) throw new RangeError(`nobody here is called ${name}; there are ${[...this.#byName.keys()].join(", ")}`);
    return id;
  }

  nameOf(id: string): string {
    return this.#byId.get(id) ?? id;
  }

  /** A text with every known id replaced. */
  shown(text: string): string {
    return text.replace(/\b(?:node|actor|pg|job|proc)_[0-9a-f]{16}\b/g, (id) => this.nameOf(id));
  }
}

/** Fields that say the same as another or are of no interest to a reader. */
const unsaid: ReadonlySet<string> = new Set([
  "className",
  "name",
  "submissionId",
  "hostname",
  "address",
  "httpAddress",
  "pid",
  "entrypoint",
  "clusterId",
]);

/** One event as a line: `actor.alive a1 incarnation=1 node=n1`. */
export function eventLine(name: EventName, fields: EventFields<EventName>, names: Names): string {
  const words: string[] = [name];
  for (const [key, value] of Object.entries(fields as Readonly<Record<string, unknown>>)) {
    if (unsaid.has(key) || value === false || value === null || value === "" || (Array.isArray(value) && value.length === 0)) continue;
    if (key === "jobId" && words.length > 1) continue;
    const text = names.shown(
      Array.isArray(value) ? value.join("; ") : typeof value === "number" ? String(Math.round(value)) : String(value),
    );
    const shown = text.includes(" ") ? JSON.stringify(text) : text;
    words.push(words.length === 1 && key.endsWith("Id") ? shown : `${key.replace(/Id$/, "")}=${shown}`);
  }
  return words.join(" ");
}
