import type { NodeDown } from "@slime/rpc/control";
import type { NodeEvent } from "./node-state.js";

/** A message of the head as an event of the machine. */
export function headEvent(down: NodeDown): NodeEvent | { readonly kind: "shutdown"; readonly graceMs: number } | null {
  const message = down.message;
  switch (message?.$case) {
    case "startActor":
      return { kind: "start_actor", start: message.value };
    case "stopActor":
      return { kind: "stop_actor", ...message.value };
    case "startJob":
      return { kind: "start_job", start: message.value };
    case "stopJob":
      return { kind: "stop_job", ...message.value };
    case "forgetJob":
      return { kind: "forget_job", jobId: message.value.jobId };
    case "prepare":
      return {
        kind: "prepare",
        id: message.value.placementGroupId,
        generation: message.value.generation,
        bundles: message.value.bundles,
        ttlMs: message.value.ttlMs,
      };
    case "commit":
      return { kind: "commit", id: message.value.placementGroupId, generation: message.value.generation };
    case "release":
      return { kind: "release", id: message.value.placementGroupId, generation: message.value.generation };
    case "shutdown":
      return { kind: "shutdown", graceMs: message.value.graceMs };
    default:
      return null; // of a newer head; it knows our protocol and does not count on it
  }
}
