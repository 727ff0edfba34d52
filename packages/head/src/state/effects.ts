import type { SlimeError } from "@slime/core";
import type { ClientDown, NodeDown } from "@slime/rpc/control";
import type { EventFields, EventName } from "@slime/telemetry";
import type { TableName } from "./head-state.js";

/** What the shell does once the changes are durable (H1), in this order. */
export type Effect =
  | { readonly kind: "node.send"; readonly link: string; readonly message: NonNullable<NodeDown["message"]> }
  | { readonly kind: "node.close"; readonly link: string }
  | { readonly kind: "client.send"; readonly session: string; readonly id: number; readonly reply: NonNullable<ClientDown["reply"]> }
  | { readonly kind: "client.close"; readonly session: string }
  /** Settles an administrator's request. */
  | { readonly kind: "answer"; readonly token: number; readonly value: unknown }
  | { readonly kind: "refuse"; readonly token: number; readonly error: SlimeError }
  | { readonly kind: "event"; readonly name: EventName; readonly fields: EventFields<EventName> }
  /** A tick is wanted at this time of the head's. */
  | { readonly kind: "wake"; readonly atMs: number };

/** One record set or, when `after` is undefined, removed. */
export interface Change {
  readonly table: TableName;
  readonly id: string;
  readonly before: unknown;
  readonly after: unknown;
}

export interface Outcome {
  readonly changes: readonly Change[];
  readonly effects: readonly Effect[];
}
