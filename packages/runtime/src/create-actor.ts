import { ActorId, SlimeError } from "@slime/core";
import type { ActorSpec } from "@slime/rpc/control";
import { unbornView } from "./actor-view.js";
import { type ActorType, sourceOf } from "./define-actor.js";
import { checkMethodNames } from "./handle.js";
import type { ActorClass, ActorHandle, RefArgs } from "./handle-types.js";
import { runtimeLimits } from "./limits.js";
import type { PlacementGroup } from "./placement-group.js";
import { type Resources, resourceUnits } from "./resources.js";
import type { Runtime } from "./runtime.js";

/** How an actor is placed, run and restarted. What it asks for it holds for life. */
export interface ActorPlacementOptions {
  /** For people and logs: "trainer-0". Default: the class's name. */
  readonly name?: string;
  /** Default `{ CPU: 1 }`. */
  readonly resources?: Resources;
  readonly placementGroup?: PlacementGroup;
  /** Which bundle of the group; default: any with room. */
  readonly bundle?: number;
  /** Only this node. */
  readonly nodeId?: string;
  /** Only nodes with these labels. */
  readonly nodeLabels?: Readonly<Record<string, string>>;
  /** Added to the process's environment before the module is loaded. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default: this process's. */
  readonly cwd?: string;
  /** Which GPUs the process sees; default: those it was assigned, so none without any. */
  readonly gpuVisibility?: "assigned" | "all" | "none";
  /** Calls at once outside any group. Default 1: serial. */
  readonly concurrency?: number;
  /** Named groups and their calls at once. A class binds methods to them by `static methodGroups = { read: "io" }`; without the group here they run in the default one. */
  readonly concurrencyGroups?: Readonly<Record<string, number>>;
  /** Lives after the first; -1: no limit. Default 0. */
  readonly maxRestarts?: number;
  /** Restarts are counted within this span; 0: over the whole life. Default 0. */
  readonly restartWindowMs?: number;
  /** "detached" outlives the job. */
  readonly lifetime?: "job" | "detached";
  /** Calls that may wait, in each caller and in the actor. */
  readonly pendingCallsMax?: number;
  readonly creationTimeoutMs?: number;
  /** Deadline of calls that name none. Default 10 minutes. */
  readonly callTimeoutMs?: number | null;
}

type ConstructorArgs<C extends ActorClass> = ConstructorParameters<C>;

/** `args` may be left out where the constructor needs none. */
export type ActorOptions<C extends ActorClass> = ActorPlacementOptions &
  ([] extends ConstructorArgs<C> ? { readonly args?: RefArgs<ConstructorArgs<C>> } : { readonly args: RefArgs<ConstructorArgs<C>> });

/** Options with their types forgotten, as the parts below the surface pass them on. */
export interface AnyActorOptions extends ActorPlacementOptions {
  readonly args?: readonly unknown[];
  /** The bundle, once it is known; overrides `bundle`. */
  readonly bundleLater?: Promise<number>;
}

/** Creates an actor; its handle is there at once, calls wait. Failures of creation reach `ready()` and every call. */
export function createActor<C extends ActorClass>(
  runtime: Runtime,
  actorClass: C | ActorType<C>,
  options: AnyActorOptions,
): ActorHandle<InstanceType<C>> {
  const source = sourceOf(actorClass);
  if (typeof actorClass === "function") checkMethodNames(actorClass);
  const name = options.name ?? source.exportName;
  checkOptions(options, name);
  const actorId = ActorId.create(runtime.parts.random);
  const view = unbornView({ actorId, jobId: runtime.parts.jobId, className: source.exportName, name });
  const creating = (async () => {
    const [args, bundle, head] = await Promise.all([
      runtime.encodeArgs(options.args ?? []),
      options.bundleLater ?? options.bundle ?? -1,
      runtime.control(),
    ]);
    const spec = actorSpec(runtime, { actorId, name, source, args, bundle, options });
    runtime.channelOf(actorId)?.heard(await head.createActor(spec, { timeoutMs: runtimeLimits.controlTimeoutMs }));
  })();
  const created = creating.catch((error: unknown) => {
    runtime.channelOf(actorId)?.heard({ ...view, state: "DEAD", creationFailure: error });
  });
  const handle = runtime.adopt(
    view,
    {
      callTimeoutMs: options.callTimeoutMs === undefined ? runtimeLimits.callTimeoutMsDefault : options.callTimeoutMs,
      pendingCallsMax: options.pendingCallsMax ?? runtimeLimits.pendingCallsMax,
    },
    created,
  );
  runtime.channelOf(actorId)?.follow();
  // The proxy answers to every method of the class; its type is the class's (handle-types.ts).
  return handle as ActorHandle<InstanceType<C>>;
}

function checkOptions(options: AnyActorOptions, name: string): void {
  const issues: string[] = [];
  const whole = (key: string, value: number | undefined, least: number) => {
    if (value !== undefined && (!Number.isInteger(value) || value < least))
      issues.push(`${name}: ${key} must be a whole number ≥ ${least}, got ${value}`);
  };
  whole("concurrency", options.concurrency, 1);
  for (const [group, size] of Object.entries(options.concurrencyGroups ?? {})) whole(`concurrencyGroups.${group}`, size, 1);
  whole("maxRestarts", options.maxRestarts, -1);
  whole("restartWindowMs", options.restartWindowMs, 0);
  whole("pendingCallsMax", options.pendingCallsMax, 1);
  whole("creationTimeoutMs", options.creationTimeoutMs, 1);
  whole("bundle", options.bundle, 0);
  if (options.bundle !== undefined && options.placementGroup === undefined) issues.push(`${name}: bundle needs a placementGroup`);
  if (issues.length > 0) throw new SlimeError("config.invalid", issues.join("; "), { issues });
}

interface SpecParts {
  readonly actorId: string;
  readonly name: string;
  readonly source: ReturnType<typeof sourceOf>;
  readonly args: Uint8Array;
  readonly bundle: number;
  readonly options: AnyActorOptions;
}

function actorSpec(runtime: Runtime, { actorId, name, source, args, bundle, options }: SpecParts): ActorSpec {
  return {
    actorId,
    jobId: runtime.parts.jobId,
    className: source.exportName,
    host: source.host,
    module: source.module,
    exportName: source.exportName,
    arguments: Buffer.from(args.buffer, args.byteOffset, args.byteLength),
    resources: resourceUnits(options.resources ?? { CPU: 1 }),
    placementGroupId: options.placementGroup?.id ?? "",
    bundleIndex: bundle,
    env: { ...options.env },
    cwd: options.cwd ?? process.cwd(),
    gpuVisibility: options.gpuVisibility ?? "assigned",
    concurrency: options.concurrency ?? 1,
    concurrencyGroups: { ...options.concurrencyGroups },
    restartsMax: options.maxRestarts ?? 0,
    restartWindowMs: options.restartWindowMs ?? 0,
    lifetime: options.lifetime ?? "job",
    name,
    pendingCallsMax: options.pendingCallsMax ?? runtimeLimits.pendingCallsMax,
    creationTimeoutMs: options.creationTimeoutMs ?? runtimeLimits.creationTimeoutMs,
    nodeLabels: { ...options.nodeLabels },
    python: source.python ?? "",
    nodeId: options.nodeId ?? "",
  };
}
