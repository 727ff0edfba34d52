import type { Engine } from "@slime/backend";
import type { MemoryTag } from "@slime/sglang";

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

/** An engine that runs, whichever backend made it. Its actor owns it. */
export interface EngineProcess {
  readonly started: EngineStarted;
  /** Null on the processes of an engine that serve nothing themselves. */
  readonly engine: OwnedEngine | null;
  /** Resolves with the reason when the engine is over or must be ended; never while all is well. */
  readonly over: Promise<string>;
  readonly close: () => Promise<void>;
}
