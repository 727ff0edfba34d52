import { SlimeError, systemClock, systemRandom } from "@slime/core";
import { startEmbeddedEngine } from "@slime/embedded";
import { HttpEngine } from "@slime/router";
import type { EngineProcess } from "./engine-process.js";

export interface EmbeddedEngineSpec {
  readonly kind: "embedded";
  readonly hfCheckpoint: string;
  /** Initial weights come from this seed; null: from the directory. */
  readonly fromSeed: number | null;
  readonly samplingSeed: number;
}

/** Runs an embedded engine in this very process, behind HTTP as the others are: its owner controls it over the same routes. */
export async function startEmbeddedProcess(
  { hfCheckpoint, fromSeed, samplingSeed }: EmbeddedEngineSpec,
  { phase }: { readonly phase: (text: string) => void },
): Promise<EngineProcess> {
  phase("loading weights");
  const engine = await startEmbeddedEngine({
    model: fromSeed === null ? { kind: "directory", path: hfCheckpoint } : { kind: "from-seed", path: hfCheckpoint, seed: fromSeed },
    seed: samplingSeed,
    clock: systemClock,
    random: systemRandom,
  });
  const client = new HttpEngine(engine.url);
  const why = "an embedded engine shares no accelerator, so there is no memory to give back";
  const refused = () => Promise.reject(new SlimeError("unsupported", why, { what: "release of memory", why }));
  return {
    started: { url: engine.url, pid: process.pid, bootstrapPort: null },
    engine: Object.assign(client, { releaseMemory: refused, resumeMemory: refused }),
    // It lives and dies with this process.
    over: new Promise(() => {}),
    async close() {
      await client.close();
      await engine.close();
    },
  };
}
