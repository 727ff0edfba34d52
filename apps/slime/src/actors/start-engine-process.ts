import type { Logger } from "@slime/core";
import { type EmbeddedEngineSpec, startEmbeddedProcess } from "./embedded-process.js";
import type { EngineProcess } from "./engine-process.js";
import type { EngineNews, EngineStart } from "./engine-protocol.js";
import { joinExternalServer, startSglangProcess } from "./sglang-process.js";
import type { ExternalEngineSpec, SglangEngineSpec } from "./sglang-spec.js";

/** Which engine an actor owns. */
export type EngineSpec = EmbeddedEngineSpec | SglangEngineSpec | ExternalEngineSpec;

/** What an engine gets of the actor that owns it. */
export interface EngineParts {
  /** Says what the engine does now. */
  readonly phase: (text: string) => void;
  readonly health: (health: EngineNews["health"]) => void;
  readonly leasePorts: (count: number) => Promise<readonly number[]>;
  /** Aborts when the actor is asked to end. */
  readonly signal: AbortSignal;
  readonly log: Logger;
}

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
