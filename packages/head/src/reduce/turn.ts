import { SlimeError } from "@slime/core";
import { toFailure } from "@slime/rpc";
import type { ClientDown, NodeDown } from "@slime/rpc/control";
import type { EventFields, EventName } from "@slime/telemetry";
import type { Change, Effect, Outcome } from "../state/effects.js";
import type { HeadState, Records, TableName } from "../state/head-state.js";
import type { Times } from "../state/inputs.js";
import type { ActorRecord, GroupRecord, JobRecord, NodeRecord } from "../state/records.js";
import type { Table } from "../state/table.js";

/** One input's work on the state: every write goes through here, so that it is made durable, and undone when it cannot be. */
export class Turn {
  readonly state: HeadState;
  readonly nowMs: number;
  readonly wallMs: number;
  readonly #changes = new Map<string, { readonly table: TableName; readonly id: string; readonly before: unknown; after: unknown }>();
  readonly #effects: Effect[] = [];
  /** Something was freed or is new: who waits is tried again before the turn ends. */
  placeAgain = false;

  constructor(state: HeadState, times: Times) {
    this.state = state;
    this.nowMs = times.nowMs;
    this.wallMs = times.wallMs;
  }

  putNode(record: NodeRecord): NodeRecord {
    this.#put("nodes", this.state.nodes, record.nodeId, record);
    return record;
  }

  putActor(record: ActorRecord): ActorRecord {
    this.#put("actors", this.state.actors, record.actorId, record);
    return record;
  }

  putGroup(record: GroupRecord): GroupRecord {
    this.#put("groups", this.state.groups, record.placementGroupId, record);
    return record;
  }

  putJob(record: JobRecord): JobRecord {
    this.#put("jobs", this.state.jobs, record.jobId, record);
    return record;
  }

  putKv(key: string, value: Uint8Array | undefined): void {
    this.#put("kv", this.state.kv, key, value);
  }

  remove(table: Exclude<TableName, "kv">, id: string): void {
    this.#put(table, this.state[table] as Table<Records[typeof table]>, id, undefined);
  }

  /** Says something to a node; nothing when it has no link: its next hello brings both sides into line. @returns whether it was said. */
  send(nodeId: string, message: NonNullable<NodeDown["message"]>): boolean {
    const link = this.state.links.get(nodeId)?.link ?? null;
    if (link !== null) this.effect({ kind: "node.send", link, message });
    return link !== null;
  }

  reply(session: string, id: number, reply: NonNullable<ClientDown["reply"]>): void {
    this.effect({ kind: "client.send", session, id, reply });
  }

  fail(session: string, id: number, error: unknown): void {
    this.reply(session, id, { $case: "failure", value: failureBytes(error) });
  }

  event<N extends EventName>(name: N, fields: EventFields<N>): void {
    this.effect({ kind: "event", name, fields: fields as EventFields<EventName> });
  }

  effect(effect: Effect): void {
    this.#effects.push(effect);
  }

  /** The next number of the order in which things were created. */
  nextOrder(): number {
    return ++this.state.order;
  }

  /** Ids of a table's records that this turn changed. */
  changed(table: TableName): readonly string[] {
    return [...this.#changes.values()].filter((change) => change.table === table).map((change) => change.id);
  }

  outcome(): Outcome {
    return { changes: [...this.#changes.values()] satisfies Change[], effects: this.#effects };
  }

  #put<R>(table: TableName, records: Table<R>, id: string, record: R | undefined): void {
    const before = records.put(id, record);
    const key = `${table} ${id}`;
    const earlier = this.#changes.get(key);
    if (earlier === undefined) this.#changes.set(key, { table, id, before, after: record });
    else earlier.after = record;
  }
}

/** A failure as the control plane carries it. */
export function failureBytes(error: unknown): Buffer {
  return Buffer.from(JSON.stringify(toFailure(error, "head")));
}

export const notFound = (kind: string, id: string): SlimeError =>
  new SlimeError("not_found", `there is no ${kind} ${id === "" ? "without an id" : id}`, { kind, id });
