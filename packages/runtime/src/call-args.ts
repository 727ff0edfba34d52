import type { ObjectDescriptor } from "@slime/rpc";
import type { PreparedArgs } from "./channel-call.js";
import { runtimeLimits } from "./limits.js";
import { ObjectRef, refState, settled } from "./object-ref.js";
import type { ValueStore } from "./ports.js";
import { measure, StoredValue, snapshot } from "./values.js";

/**
 * Makes a call's arguments ready to leave: top-level references become their values, references inside containers are
 * waited for and stay references, and arguments above `inlineBytesMax` move to the store. Small plain arguments are ready at once.
 * @throws what a reference failed with; the call fails with the same error.
 */
export function prepareArgs(args: readonly unknown[], store: ValueStore): PreparedArgs | Promise<PreparedArgs> {
  for (const arg of args) {
    if (typeof arg === "string" ? arg.length <= runtimeLimits.inlineBytesMax : typeof arg !== "object" || arg === null) continue;
    if (arg instanceof ObjectRef) return prepareSlowly(args, store);
    const { bytes, refs } = measure(arg);
    if (bytes > runtimeLimits.inlineBytesMax || refs !== null) return prepareSlowly(args, store);
  }
  return { args, release: null };
}

async function prepareSlowly(args: readonly unknown[], store: ValueStore): Promise<PreparedArgs> {
  // What must wait keeps the values of the moment the call was made; large arrays of a call that need not wait are not copied.
  const waits = args.flatMap((arg) => measure(arg).refs ?? []).some((ref) => refState(ref).kind === "pending");
  const kept = waits ? (snapshot(args) as readonly unknown[]) : args;
  const stored: ObjectDescriptor[] = [];
  const ready: unknown[] = [];
  for (const arg of kept) {
    if (arg instanceof ObjectRef) {
      ready.push(await valueToSend(arg));
      continue;
    }
    const { bytes, refs } = measure(arg);
    for (const ref of refs ?? []) await usable(ref);
    if (bytes <= runtimeLimits.inlineBytesMax) ready.push(arg);
    else {
      const object = await store.put(arg);
      stored.push(object);
      ready.push(new StoredValue(object));
    }
  }
  return { args: ready, release: stored.length === 0 ? null : () => void store.free(stored) };
}

/** Waits for a reference inside a container. @throws what it failed with. */
async function usable(ref: ObjectRef<unknown>): Promise<void> {
  await settled(ref);
  const state = refState(ref);
  if (state.kind === "failed") throw state.error;
}

/** What stands in the place of a top-level reference: its value, or where its value lies. */
async function valueToSend(ref: ObjectRef<unknown>): Promise<unknown> {
  await usable(ref);
  const state = refState(ref);
  return state.kind === "stored" ? new StoredValue(state.object) : state.kind === "value" ? state.value : undefined;
}

/** The arguments as a method takes them: what lies in the store is read. Returns the array itself when nothing does. */
export function readArgs(args: readonly unknown[], store: ValueStore): readonly unknown[] | Promise<readonly unknown[]> {
  for (const arg of args)
    if (arg instanceof StoredValue) return Promise.all(args.map((item) => (item instanceof StoredValue ? store.get(item.object) : item)));
  return args;
}

/** A result as it travels: references inside are waited for, large values move to the store. */
export function prepareResult(value: unknown, store: ValueStore): unknown {
  if (typeof value !== "object" || value === null)
    return typeof value === "string" && value.length > runtimeLimits.inlineBytesMax ? toStore(value, store) : value;
  const { bytes, refs } = measure(value);
  if (bytes <= runtimeLimits.inlineBytesMax && refs === null) return value;
  return (async () => {
    for (const ref of refs ?? []) await usable(ref);
    return bytes > runtimeLimits.inlineBytesMax ? toStore(value, store) : value;
  })();
}

async function toStore(value: unknown, store: ValueStore): Promise<StoredValue> {
  return new StoredValue(await store.put(value));
}
