import type { Engine } from "@slime/backend";
import type { Logger } from "@slime/core";
import type { MemoryTag } from "@slime/sglang";
import type { EngineNews } from "./engine-protocol.js";

/** The engine port with what only its owner may ask. */
export interface OwnedEngine extends Engine {
  readonly releaseMemory: (tags: readonly MemoryTag[]) => Promise<void>;
  readonly resumeMemory: (tags: readonly MemoryTag[]) => Promise<void>;
}

/** Where an engine serves, as whoever routes to it must know it. */
export interface EngineStarted {
  /** Null on the processes of an engine that serve nothing themselves. */
  readonly url: string | null;
  readonly pid: number;
  /** Where decode engines fetch a prompt's cache; null unless it prefills. */
  readonly bootstrapPort: number | null;
}

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

/** An engine that runs, whichever backend made it. Its actor owns it. */
export interface EngineProcess {
  readonly started: EngineStarted;
  /** Null on the processes of an engine that serve nothing themselves. */
  readonly engine: OwnedEngine | null;
  /** Resolves with the reason when the engine is over or must be ended; never while all is well. */
  readonly over: Promise<string>;
  readonly close: () => Promise<void>;
}
