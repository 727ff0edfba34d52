/**
 * Prompts of a JSONL file, epoch after epoch.
 * Invariants: S1 the order is a function of (file, slice, filter, seed, shuffle) and the cursor alone; S2 every epoch gives each kept row
 * exactly once; S3 `restore(state())` continues with the same instances; S4 an instance that was given back is taken again before any
 * new one, under its old id and index; S5 ids are `<epoch>:<row>`, row counting the file's rows from 0, so a slice or filter renames
 * nothing; `groupIndex` is `epoch · size + position`.
 */
import type { Prompt } from "@slime/backend";
import { invariant, SlimeError } from "@slime/core";
import { parseDataPath, sliceRange } from "./data-path.js";
import type { DataSource, DataSourceState, PromptGroup } from "./data-source.js";
import { type JsonlFile, openJsonl } from "./jsonl-file.js";
import type { PromptCodec } from "./prompt-codec.js";
import { defaultRecordKeys, type PromptRecord, parsePromptRecord, type RecordKeys } from "./prompt-record.js";
import { pythonRandom } from "./python-random.js";

/** What a source reads and in which order, under the names of upstream's flags where they have one. */
export interface JsonlSourceOptions {
  /** `file.jsonl` or `file.jsonl@[a:b]`. */
  readonly path: string;
  /** The flag that named the path, for errors. */
  readonly wanted: string;
  readonly keys?: RecordKeys | undefined;
  /** Render prompts with the model's chat template; needs `codec`. */
  readonly applyChatTemplate: boolean;
  /** Needed for templates and for `promptTokensMax`. */
  readonly codec: PromptCodec | null;
  /** Longer prompts are left out; null: none. */
  readonly promptTokensMax: number | null;
  readonly shuffle: boolean;
  readonly seed: number;
  readonly signal?: AbortSignal | undefined;
}

/** Most instances that may wait after being given back. */
export const returnedMax = 1_000_000;
/** Most instances of one `take`. */
export const takeMax = 1_000_000;

/** The source, and how many prompts the length filter left out. */
export interface OpenedSource {
  readonly source: DataSource;
  readonly tooLong: number;
}

/** Reads and checks the whole file before anything else starts. @throws SlimeError `file.missing`, `data.invalid`, `config.invalid`. */
export async function openJsonlSource(options: JsonlSourceOptions): Promise<OpenedSource> {
  const { file: path, slice } = parseDataPath(options.path);
  refuseOtherFormats(path, options.wanted);
  invariant(
    options.codec !== null || (!options.applyChatTemplate && options.promptTokensMax === null),
    "a chat template or a length filter needs the model's codec",
  );
  const keys = options.keys ?? defaultRecordKeys;
  const lengths: number[] = [];
  const check = (value: unknown, row: number): string | null => {
    const parsed = parsePromptRecord(value, keys);
    if (parsed.kind === "bad") return parsed.issue;
    if (typeof parsed.record.prompt !== "string" && !options.applyChatTemplate)
      return "the prompt is a list of chat messages: turn --apply-chat-template on";
    try {
      const prompt = rendered(parsed.record, options);
      if (options.promptTokensMax !== null) lengths[row] = options.codec?.encode(prompt).length ?? 0;
      return null;
    } catch (error) {
      return `the chat template fails on it (${error instanceof Error ? error.message : String(error)}): change the prompt, or --apply-chat-template-kwargs`;
    }
  };
  const file = await openJsonl(path, { wanted: options.wanted, check, signal: options.signal });
  const { from, to } = sliceRange(slice, file.rows);
  const rows = Int32Array.from({ length: to - from }, (_, i) => from + i).filter(
    (row) => options.promptTokensMax === null || (lengths[row] ?? 0) <= options.promptTokensMax,
  );
  if (rows.length === 0) {
    await file.close();
    const issue =
      to === from
        ? `${options.path} has no rows${slice === null ? "" : ` (the file has ${file.rows})`}`
        : `all ${to - from} prompts of ${options.path} are longer than --rollout-max-prompt-len (${options.promptTokensMax} tokens)`;
    throw new SlimeError("data.invalid", issue, { file: path, issues: [issue] });
  }
  return { source: new JsonlSource(file, rows, options, keys), tooLong: to - from - rows.length };
}

function refuseOtherFormats(path: string, wanted: string): void {
  if (path.endsWith(".jsonl")) return;
  if (path.endsWith(".parquet"))
    throw new SlimeError("unsupported", `${wanted}: ${path} is Parquet: convert it to JSONL, one {"prompt", "label"} a line`, {
      what: "Parquet data",
      why: "only JSONL is read",
    });
  const issue = `${wanted}: ${path} must end in .jsonl, one JSON object a line`;
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

function rendered(record: PromptRecord, { applyChatTemplate, codec }: JsonlSourceOptions): Prompt {
  return applyChatTemplate && codec !== null ? codec.render(record.prompt, record.tools) : record.prompt;
}

/** Positions of an epoch's rows: Python's `random.seed(seed + epoch)`, then `shuffle` of the original order. */
export function epochOrder(
  size: number,
  options: { readonly shuffle: boolean; readonly seed: number; readonly epoch: number },
): Int32Array {
  const order = Int32Array.from({ length: size }, (_, i) => i);
  if (options.shuffle) pythonRandom(options.seed + options.epoch).shuffle(order);
  return order;
}

class JsonlSource implements DataSource {
  readonly size: number;
  readonly #file: JsonlFile;
  readonly #rows: Int32Array;
  readonly #options: JsonlSourceOptions;
  readonly #keys: RecordKeys;
  #epoch = 0;
  #offset = 0;
  #returned: string[] = [];
  #order: { readonly epoch: number; readonly order: Int32Array } = { epoch: -1, order: new Int32Array() };
  #turn: Promise<unknown> = Promise.resolve();

  constructor(file: JsonlFile, rows: Int32Array, options: JsonlSourceOptions, keys: RecordKeys) {
    this.#file = file;
    this.#rows = rows;
    this.size = rows.length;
    this.#options = options;
    this.#keys = keys;
  }

  take(count: number): Promise<readonly PromptGroup[]> {
    return this.#inTurn(async () => {
      if (count > takeMax)
        throw new SlimeError("wire.limit", `take asks for ${count} prompts, more than takeMax (${takeMax})`, {
          what: "takeMax",
          value: count,
          max: takeMax,
        });
      const returned = this.#returned.slice(0, count);
      const groups = [...(await this.#find(returned))];
      let [epoch, offset] = [this.#epoch, this.#offset];
      while (groups.length < count) {
        if (offset === this.size) [epoch, offset] = [epoch + 1, 0];
        groups.push(await this.#group(epoch, offset++));
      }
      // Nothing moved before every row was read: a failed take can be repeated.
      this.#returned.splice(0, returned.length);
      [this.#epoch, this.#offset] = [epoch, offset];
      return groups;
    });
  }

  giveBack(instanceIds: readonly string[]): void {
    if (this.#returned.length + instanceIds.length > returnedMax)
      throw new SlimeError("wire.limit", `more than returnedMax (${returnedMax}) prompts came back`, {
        what: "returnedMax",
        value: this.#returned.length + instanceIds.length,
        max: returnedMax,
      });
    this.#returned.push(...instanceIds);
  }

  lookup(instanceIds: readonly string[]): Promise<readonly PromptGroup[]> {
    return this.#inTurn(() => this.#find(instanceIds));
  }

  state(): DataSourceState {
    return { version: 1, identity: this.#identity(), epoch: this.#epoch, offset: this.#offset, returned: [...this.#returned] };
  }

  restore(state: unknown): Promise<void> {
    return this.#inTurn(async () => {
      const { identity, epoch, offset, returned } = parseState(state, this.#file.path);
      const mine = this.#identity();
      const issues = (["sha256", "size", "seed", "shuffle"] as const).flatMap((key) =>
        identity[key] === mine[key]
          ? []
          : [`${this.#options.path}: ${key} is ${String(mine[key])}, the checkpoint's is ${String(identity[key])}`],
      );
      if (issues.length > 0)
        throw new SlimeError(
          "data.invalid",
          `the data are not those of the checkpoint, so its place in them means nothing; resume with the same file, slice, filter and seed, or start a new run:\n${issues.join("\n")}`,
          { file: this.#file.path, issues },
        );
      [this.#epoch, this.#offset, this.#returned] = [epoch, offset, [...returned]];
    });
  }

  close(): Promise<void> {
    return this.#inTurn(() => this.#file.close());
  }

  #inTurn<T>(work: () => Promise<T>): Promise<T> {
    const done = this.#turn.then(work);
    this.#turn = done.catch(() => {});
    return done;
  }

  #identity(): DataSourceState["identity"] {
    return { sha256: this.#file.digest, size: this.size, seed: this.#options.seed, shuffle: this.#options.shuffle };
  }

  #orderOf(epoch: number): { readonly epoch: number; readonly order: Int32Array } {
    if (this.#order.epoch !== epoch)
      this.#order = { epoch, order: epochOrder(this.size, { shuffle: this.#options.shuffle, seed: this.#options.seed, epoch }) };
    return this.#order;
  }

  async #group(epoch: number, position: number): Promise<PromptGroup> {
    const row = this.#rows[this.#orderOf(epoch).order[position] ?? -1] ?? -1;
    const parsed = parsePromptRecord(await this.#file.read(row), this.#keys);
    if (parsed.kind === "bad")
      throw new SlimeError("data.invalid", `${this.#file.path}: row ${row} ${parsed.issue}`, {
        file: this.#file.path,
        issues: [parsed.issue],
      });
    const { label, metadata } = parsed.record;
    return {
      groupIndex: epoch * this.size + position,
      instanceId: `${epoch}:${row}`,
      prompt: rendered(parsed.record, this.#options),
      label,
      metadata,
    };
  }

  async #find(instanceIds: readonly string[]): Promise<readonly PromptGroup[]> {
    const byEpoch = new Map<number, Map<number, string>>();
    for (const id of instanceIds) {
      const match = /^(\d{1,15}):(\d{1,15})$/.exec(id);
      if (match === null) throw missing(id);
      const wanted = byEpoch.get(Number(match[1])) ?? new Map<number, string>();
      byEpoch.set(Number(match[1]), wanted.set(Number(match[2]), id));
    }
    const found = new Map<string, PromptGroup>();
    for (const [epoch, wanted] of byEpoch) {
      const { order } = this.#orderOf(epoch);
      for (let position = 0; position < order.length; position++) {
        const id = wanted.get(this.#rows[order[position] ?? -1] ?? -1);
        if (id !== undefined) found.set(id, await this.#group(epoch, position));
      }
    }
    return instanceIds.map((id) => {
      const group = found.get(id);
      if (group === undefined) throw missing(id);
      return group;
    });
  }
}

function missing(id: string): SlimeError {
  return new SlimeError("not_found", `prompt instance ${id} is not in this data: is the file, slice or filter another one?`, {
    kind: "prompt instance",
    id,
  });
}

function parseState(state: unknown, path: string): DataSourceState {
  if (
    typeof state === "object" &&
    state !== null &&
    "version" in state &&
    state.version === 1 &&
    "identity" in state &&
    "epoch" in state &&
    "offset" in state &&
    "returned" in state
  )
    return state as unknown as DataSourceState;
  const issue = `the checkpoint holds no place in ${path}: resume from another checkpoint`;
  throw new SlimeError("data.invalid", issue, { file: path, issues: [issue] });
}

/** Most prompts of an evaluation set. */
export const promptSetMax = 100_000;

/** A whole file in its own order, for evaluation: ids are `<name>:<row>`, indices count from 0. */
export async function loadPromptSet(name: string, options: Omit<JsonlSourceOptions, "shuffle" | "seed">): Promise<readonly PromptGroup[]> {
  const { source } = await openJsonlSource({ ...options, shuffle: false, seed: 0 });
  try {
    if (source.size > promptSetMax)
      throw new SlimeError(
        "data.invalid",
        `${options.path} has ${source.size} prompts, more than promptSetMax (${promptSetMax}): take a slice`,
        { file: options.path, issues: [`${source.size} prompts`] },
      );
    const groups = await source.take(source.size);
    return groups.map((group) => ({ ...group, instanceId: `${name}:${group.instanceId.slice(2)}` }));
  } finally {
    await source.close();
  }
}
