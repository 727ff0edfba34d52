import { readFileSync } from "node:fs";
import { join } from "node:path";
import { SlimeError } from "@slime/core";
import type { RunConfig } from "@slime/rl-config";

/** Tokens of prompt and answer together: `--rollout-max-context-len`, never more than the model's own positions. */
export function contextLength(config: Pick<RunConfig, "hfCheckpoint" | "rolloutMaxContextLen">): number {
  const path = join(config.hfCheckpoint, "config.json");
  let positions: unknown;
  try {
    positions = (JSON.parse(readFileSync(path, "utf8")) as { readonly max_position_embeddings?: unknown }).max_position_embeddings;
  } catch (cause) {
    throw new SlimeError(
      "file.missing",
      `--hf-checkpoint ${config.hfCheckpoint}: cannot read ${path}`,
      { path, wanted: "--hf-checkpoint" },
      { cause },
    );
  }
  const own = typeof positions === "number" ? positions : Number.POSITIVE_INFINITY;
  return Math.min(config.rolloutMaxContextLen ?? own, own);
}
