import type { ObjectDescriptor } from "@slime/rpc";
import type { ActorSpec } from "@slime/rpc/control";
import type { ActorView } from "./actor-view.js";
import type { WaitOptions } from "./handle-types.js";

/** Where large values lie. Behind it: the machine's object store, or memory in tests. */
export interface ValueStore {
  readonly put: (value: unknown) => Promise<ObjectDescriptor>;
  /** A value of the reader's own. @throws object.lost when it was freed. */
  readonly get: (object: ObjectDescriptor) => Promise<unknown>;
  /** Idempotent; whoever reads it later gets `object.lost`. */
  readonly free: (objects: readonly ObjectDescriptor[]) => Promise<void>;
}

/** One bundle of a placed group, in rank order: node address numerically, then GPU index. */
export interface PlacementRow {
  readonly bundle: number;
  readonly nodeId: string;
  readonly address: string;
  /** The bundle's first GPU; null when it has none. */
  readonly gpuIndex: number | null;
  readonly gpuUuid: string | null;
  readonly gpus: readonly { readonly index: number; readonly uuid: string }[];
}

export type PlacementGroupState = "PENDING" | "PREPARED" | "CREATED" | "RESCHEDULING" | "REMOVED" | "INFEASIBLE";

/** What the head last said of a placement group. */
export interface PlacementGroupView {
  readonly placementGroupId: string;
  readonly state: PlacementGroupState;
  readonly generation: number;
  readonly rows: readonly PlacementRow[];
  readonly waiting: readonly string[];
  readonly failure: unknown;
}

export type PlacementStrategy = "PACK" | "SPREAD" | "STRICT_PACK" | "STRICT_SPREAD";

export interface NewPlacementGroup {
  readonly placementGroupId: string;
  readonly strategy: PlacementStrategy;
  readonly name: string;
  /** In whole units of 1/10,000. */
  readonly bundles: readonly Readonly<Record<string, number>>[];
}

/** One machine of the cluster, amounts in whole resources (not units). */
export interface NodeView {
  readonly nodeId: string;
  readonly state: "ALIVE" | "SUSPECT" | "LOST" | "LEFT";
  readonly hostname: string;
  readonly address: string;
  readonly pid: number;
  readonly resources: Readonly<Record<string, number>>;
  readonly available: Readonly<Record<string, number>>;
  readonly gpus: readonly {
    readonly index: number;
    readonly uuid: string;
    readonly name: string;
    readonly memoryMib: number;
    readonly virtual: boolean;
  }[];
  readonly labels: Readonly<Record<string, string>>;
}

/**
 * The head as this process needs it. Requests wait for a head that is away, within their deadline (`head.unavailable`).
 * Followers hear what is known at once and every change, also across head restarts.
 */
export interface ControlPort {
  /** Idempotent by actor id. */
  readonly createActor: (spec: ActorSpec, options?: WaitOptions) => Promise<ActorView>;
  readonly killActor: (
    request: { readonly actorId: string; readonly graceMs: number; readonly noRestart: boolean },
    options?: WaitOptions,
  ) => Promise<void>;
  readonly followActor: (actorId: string, onView: (view: ActorView) => void) => void;
  readonly createPlacementGroup: (group: NewPlacementGroup, options?: WaitOptions) => Promise<PlacementGroupView>;
  readonly followPlacementGroup: (placementGroupId: string, onView: (view: PlacementGroupView) => void) => void;
  readonly removePlacementGroup: (placementGroupId: string, options?: WaitOptions) => Promise<void>;
  readonly nodes: (options?: WaitOptions) => Promise<readonly NodeView[]>;
  readonly kvPut: (
    request: { readonly key: string; readonly value: Uint8Array; readonly ifAbsent: boolean },
    options?: WaitOptions,
  ) => Promise<{ readonly found: boolean }>;
  readonly kvGet: (key: string, options?: WaitOptions) => Promise<Uint8Array | null>;
  readonly kvDelete: (key: string, options?: WaitOptions) => Promise<void>;
  readonly kvList: (prefix: string, options?: WaitOptions) => Promise<readonly string[]>;
  /** What a driver does and waits for; fire and forget. */
  readonly reportPhase: (phase: string, waitingFor: string) => void;
  readonly close: () => Promise<void>;
}
