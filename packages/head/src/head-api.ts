/** What the head is to those around it: servers, the CLI's routes, tests. */
import type { Clock, Logger, Random } from "@slime/core";
import type { ClientDown, ClientUpBatch, NodeDown, NodeUpBatch } from "@slime/rpc/control";
import type { EventSink } from "@slime/telemetry";
import type { HeadIdentity, HeadState } from "./state/head-state.js";
import type { HeadInput } from "./state/inputs.js";
import type { StateStore } from "./store/store.js";

/** The head's end of one stream: messages go out in the order given; what is sent in one turn may travel as one batch. */
export interface Outlet<M> {
  readonly send: (message: M) => void;
  readonly close: () => void;
}

/** A daemon's end of its stream: `receive` takes what the daemon sent, `closed` says that the stream ended. */
export interface NodeInlet {
  readonly receive: (batch: NodeUpBatch) => void;
  readonly closed: () => void;
}

/** A client's end of its stream, as `NodeInlet`. */
export interface ClientInlet {
  readonly receive: (batch: ClientUpBatch) => void;
  readonly closed: () => void;
}

/** What the head is built on; all of it can be given in memory and on virtual time. */
export interface HeadDependencies {
  readonly store: StateStore;
  readonly clock: Clock;
  readonly random: Random;
  readonly log: Logger;
  readonly events: EventSink;
  /** Time of each commit, in ms. */
  readonly onCommit?: (durationMs: number, inputs: number) => void;
  readonly onInput?: (kind: HeadInput["kind"]) => void;
}

/** What an administrator may ask of the head itself, over no session. */
export type Ask =
  | Omit<Extract<HeadInput, { readonly kind: "job.submit" }>, "token">
  | Omit<Extract<HeadInput, { readonly kind: "job.stop" }>, "token">
  | Omit<Extract<HeadInput, { readonly kind: "job.delete" }>, "token">
  | Omit<Extract<HeadInput, { readonly kind: "node.stop" }>, "token">
  | Omit<Extract<HeadInput, { readonly kind: "cluster.stop" }>, "token">;

/** The head of one cluster while it lives. */
export interface Head extends AsyncDisposable {
  readonly clusterId: string;
  readonly epoch: number;
  /** What is known, to be read, never changed. It may be a few milliseconds ahead of the disk. */
  readonly state: HeadState;
  /** Says where the head listens, to be told to all who ask; called once it does. */
  readonly announce: (where: Omit<HeadIdentity, "clusterId" | "epoch">) => void;
  /** The head's own time. */
  readonly nowMs: () => number;
  /** Why nothing can be changed any more; null while all is well. */
  readonly readOnly: () => string | null;
  readonly openNode: (outlet: Outlet<NodeDown>) => NodeInlet;
  readonly openClient: (outlet: Outlet<ClientDown>) => ClientInlet;
  /** An administrator's request; settles when it is done and durable. */
  readonly ask: (request: Ask) => Promise<unknown>;
  /** Called after every durable turn that changed something. @returns undoes it. */
  readonly onChange: (listener: () => void) => () => void;
  /** Stops the clockwork, waits for what is being written, closes the store. Nodes and clients are not told. */
  readonly close: () => Promise<void>;
}
