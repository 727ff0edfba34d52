import { type EmbeddedEngineSpec, startEmbeddedProcess } from "./embedded-process.js";
import type { EngineParts, EngineProcess } from "./engine-process.js";
import type { EngineStart } from "./engine-protocol.js";
import { joinExternalServer, startSglangProcess } from "./sglang-process.js";
import type { ExternalEngineSpec, SglangEngineSpec } from "./sglang-spec.js";

/** Which engine an actor owns. */
export type EngineSpec = EmbeddedEngineSpec | SglangEngineSpec | ExternalEngineSpec;

/** Starts the engine that the specification names, or takes up the one that runs. */
export function startEngineProcess(spec: EngineSpec, plan: EngineStart, parts: EngineParts): Promise<EngineProcess> {
  switch (spec.kind) {
    case "embedded":
      return startEmbeddedProcess(spec, parts);
    case "sglang":
      return startSglangProcess(spec, plan, parts);
    case "external":
      return joinExternalServer(spec, parts);
  }
}
