import { customRandom } from "nanoid";
import type { Random } from "./random.js";

declare const brand: unique symbol;
type Id<Kind extends string> = string & { readonly [brand]: Kind };

/** Makes and recognises one kind of id. On the wire and in logs it reads `node_6f2c01d4e8a97b35`. */
export interface IdKind<Kind extends string> {
  readonly create: (random: Random) => Id<Kind>;
  readonly is: (text: string) => text is Id<Kind>;
  /** Checks text that crossed a boundary. @throws RangeError that names the kind wanted and the text found. */
  readonly parse: (text: string) => Id<Kind>;
}

function idKind<Kind extends string>(kind: Kind): IdKind<Kind> {
  const form = new RegExp(`^${kind}_[0-9a-f]{16}$`);
  const is = (text: string): text is Id<Kind> => form.test(text);
  return {
    create: (random) => `${kind}_${customRandom("0123456789abcdef", 16, (n) => random.bytes(n))()}` as Id<Kind>,
    is,
    parse(text) {
      if (is(text)) return text;
      throw new RangeError(`expected an id like ${kind}_6f2c01d4e8a97b35, got ${JSON.stringify(text.slice(0, 80))}`);
    },
  };
}

export type ClusterId = Id<"cluster">;
export const ClusterId = idKind("cluster");
export type NodeId = Id<"node">;
export const NodeId = idKind("node");
export type JobId = Id<"job">;
export const JobId = idKind("job");
export type ActorId = Id<"actor">;
export const ActorId = idKind("actor");
export type PlacementGroupId = Id<"pg">;
export const PlacementGroupId = idKind("pg");
export type ObjectId = Id<"obj">;
export const ObjectId = idKind("obj");
/** A process started by a daemon: a pooled host, an actor or a job's driver. */
export type ProcessId = Id<"proc">;
export const ProcessId = idKind("proc");
/** One operation on a gang: repeated with the same id, it returns the recorded result. */
export type OpId = Id<"op">;
export const OpId = idKind("op");
export type TraceId = Id<"trace">;
export const TraceId = idKind("trace");

/** Counts the lives of one id, from 1. A message of a lower incarnation than the receiver knows is stale. */
export type Incarnation = number;
/** Counts the lives of the head, from 1; raised and made durable before the head listens. */
export type HeadEpoch = number;
