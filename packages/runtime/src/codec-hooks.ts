import { invariant, SlimeError } from "@slime/core";
import type { CodecHooks, ObjectDescriptor, RefPayload } from "@slime/rpc";
import { ObjectRef, refState } from "./object-ref.js";
import { StoredValue } from "./values.js";

/** An actor handle on a wire: enough to call it without asking the head, while this life of it lasts. */
export interface ActorPayload {
  readonly actorId: string;
  readonly jobId: string;
  readonly className: string;
  readonly name: string;
  readonly incarnation: number;
  readonly socket: string | null;
  readonly callTimeoutMs: number | null;
  readonly pendingCallsMax: number;
}

/** How handles are taken apart and made; the runtime gives it, so that this file knows no runtime. */
export interface HandleCodec {
  readonly payloadOf: (value: object) => ActorPayload | undefined;
  readonly handleOf: (payload: ActorPayload) => unknown;
}

/** References, stored values and handles across every wire of this process. */
export function runtimeHooks(handles: HandleCodec): CodecHooks {
  return {
    encodeSpecial(value) {
      if (value instanceof StoredValue) return { tag: "__stored", payload: value.object };
      if (value instanceof ObjectRef) return { tag: "__ref", payload: refPayload(value) };
      const payload = handles.payloadOf(value);
      return payload === undefined ? undefined : { tag: "__actor", payload };
    },
    decodeSpecial(tag, payload) {
      switch (tag) {
        case "__stored":
          return new StoredValue(payload as ObjectDescriptor);
        case "__ref": {
          const ref = payload as RefPayload;
          return new ObjectRef(
            ref.id,
            ref.kind === "stored" ? { kind: "stored", object: ref.object } : { kind: "value", value: ref.value },
          );
        }
        case "__actor":
          return handles.handleOf(payload as ActorPayload);
        default:
          throw new SlimeError("codec.refused", `this process knows no ${tag}`, { where: tag, reason: "unknown tag" });
      }
    },
  };
}

function refPayload(ref: ObjectRef<unknown>): RefPayload {
  const state = refState(ref);
  if (state.kind === "failed") throw state.error;
  invariant(state.kind !== "pending", "R3: a reference is settled before it is encoded");
  return state.kind === "stored"
    ? { kind: "stored", id: ref.id, object: state.object }
    : { kind: "inline", id: ref.id, value: state.value };
}
