import { SlimeError } from "@slime/core";

/** What became of a call, by its idempotency key. */
type Recorded =
  | { readonly kind: "running"; readonly outcome: Promise<unknown> }
  | { readonly kind: "result"; readonly value: unknown; readonly bytes: number }
  | { readonly kind: "failed"; readonly error: unknown }
  | { readonly kind: "tooLarge"; readonly bytes: number };

export interface CallRecordLimits {
  readonly entriesMax: number;
  readonly bytesMax: number;
}

/**
 * Results by idempotency key, bounded. K1: of all calls with one key, one runs per life of the actor, while the record lasts.
 * K2: what was cancelled is forgotten, so it may run again. K3: the oldest finished entries go first; a running one never goes.
 */
export interface CallRecord {
  /** The outcome of the call with this key; runs it if there was none. */
  readonly once: (key: string, run: () => unknown) => Promise<unknown>;
  readonly size: () => number;
}

/** `sizeOf` estimates the bytes a result holds. */
export function callRecord(limits: CallRecordLimits, sizeOf: (value: unknown) => number): CallRecord {
  const entries = new Map<string, Recorded>();
  let bytes = 0;
  const evict = () => {
    for (const [key, entry] of entries) {
      if (entries.size <= limits.entriesMax && bytes <= limits.bytesMax) return;
      if (entry.kind === "running") continue;
      if (entry.kind === "result") bytes -= entry.bytes;
      entries.delete(key);
    }
  };
  const keep = (key: string, entry: Recorded) => {
    entries.delete(key);
    entries.set(key, entry);
    if (entry.kind === "result") bytes += entry.bytes;
    evict();
  };
  return {
    size: () => entries.size,
    once(key, run) {
      const known = entries.get(key);
      switch (known?.kind) {
        case "running":
          return known.outcome;
        case "result":
          return Promise.resolve(known.value);
        case "failed":
          return Promise.reject(known.error);
        case "tooLarge":
          return Promise.reject(
            new SlimeError(
              "object.lost",
              `the result of call ${key} (${known.bytes} bytes) was too large to keep for a repetition; return a reference instead`,
              { objectId: key, reason: "not recorded" },
            ),
          );
        case undefined:
      }
      const outcome = (async () => run())();
      entries.set(key, { kind: "running", outcome });
      outcome.then(
        (value) => {
          let size: number;
          try {
            size = sizeOf(value);
          } catch (error) {
            // What cannot be measured cannot be sent either; a repetition fails alike.
            return keep(key, { kind: "failed", error });
          }
          keep(key, size > limits.bytesMax ? { kind: "tooLarge", bytes: size } : { kind: "result", value, bytes: size });
        },
        (error: unknown) => {
          if (SlimeError.is(error, "call.cancelled") || SlimeError.is(error, "call.deadline") || SlimeError.is(error, "actor.busy"))
            entries.delete(key);
          else keep(key, { kind: "failed", error });
        },
      );
      return outcome;
    },
  };
}
