import { type EmbeddedEngineSpec, startEmbeddedProcess } from "./embedded-process.js";
import type { EngineProcess } from "./engine-process.js";
import type { EngineStart } from "./engine-protocol.js";

/** Which engine an actor owns. */
export type EngineSpec = EmbeddedEngineSpec;

export interface EngineParts {
  /** Says what the engine does now. */
  readonly phase: (text: string) => void;
}

/** Starts the engine that the specification names. */
export function startEngineProcess(spec: EngineSpec, _plan: EngineStart, parts: EngineParts): Promise<EngineProcess> {
  return startEmbeddedProcess(spec, parts);
}
