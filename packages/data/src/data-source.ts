import type { Prompt } from "@slime/backend";

/** One prompt instance. Sample i of a group of n has the index `groupIndex · n + i`. */
export interface PromptGroup {
  readonly groupIndex: number;
  readonly instanceId: string;
  readonly prompt: Prompt;
  readonly label: string | null;
  readonly metadata: Readonly<Record<string, unknown>>;
}

/** Where prompts come from. One taker at a time is served; calls wait for each other. */
export interface DataSource {
  /** Prompts of one epoch. */
  readonly size: number;
  /** The next `count` instances: what was given back first, then new ones, over as many epochs as that takes. */
  readonly take: (count: number) => Promise<readonly PromptGroup[]>;
  /** Instances that came back unfinished. @throws SlimeError `wire.limit` past `returnedMax`. */
  readonly giveBack: (instanceIds: readonly string[]) => void;
  /** Instances by id, as they were first taken; moves nothing. @throws SlimeError `not_found`. */
  readonly lookup: (instanceIds: readonly string[]) => Promise<readonly PromptGroup[]>;
  readonly state: () => DataSourceState;
  /** @throws SlimeError `data.invalid` when the state belongs to other data or another order. */
  readonly restore: (state: unknown) => Promise<void>;
  readonly close: () => Promise<void>;
}

/** Plain JSON, for manifests (a type, not an interface, so that it also counts as a JSON value). */
export type DataSourceState = {
  readonly version: 1;
  /** What the order depends on; compared on restore. */
  readonly identity: { readonly sha256: string; readonly size: number; readonly seed: number; readonly shuffle: boolean };
  /** The next new instance: `offset` instances of `epoch` have been taken. */
  readonly epoch: number;
  readonly offset: number;
  /** Ids that were given back, oldest first. */
  readonly returned: readonly string[];
};
