import type { Language } from "./node-state.js";

/** How a host of a language is started; the app knows where they lie. */
export interface HostCommand {
  readonly command: readonly [string, ...string[]];
  /** Added to the process's environment. */
  readonly env: Readonly<Record<string, string>>;
}

export interface HostCommandOptions {
  /** The interpreter an actor asked for; empty: the default. */
  readonly interpreter: string;
  /** What the actor loads, where it is known at exec: a `.ts` file needs a loader on older Nodes. Empty for the pool. */
  readonly module: string;
}

export type HostCommands = (language: Language, options: HostCommandOptions) => HostCommand;
