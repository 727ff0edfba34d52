import { afterAll, afterEach, beforeAll, describe } from "vitest";
import { generationCases } from "./engine-generation.js";
import { requestCases } from "./engine-requests.js";
import { EngineProbe, type EngineSubject } from "./engine-subject.js";
import { weightCases } from "./engine-weights.js";

/** A first start of a real server compiles its kernels. */
const startMsMax = 300_000;

/**
 * What every engine does, seen through the port and, where the port is silent, through SGLang's routes at `engine.url`.
 * One subject serves all cases, in their order; after each the server is idle and not paused. The last case kills it.
 */
export function engineConformance(name: string, start: () => Promise<EngineSubject>): void {
  describe(`engine: ${name}`, () => {
    let probe: EngineProbe | null = null;
    let killed = false;
    const running = (): EngineProbe => {
      if (probe === null) throw new Error("the subject did not start");
      return probe;
    };
    beforeAll(async () => {
      const subject = await start();
      const { kill } = subject;
      const ending =
        kill === null
          ? null
          : () => {
              killed = true;
              return kill();
            };
      probe = new EngineProbe({ ...subject, kill: ending, [Symbol.asyncDispose]: () => subject[Symbol.asyncDispose]() });
    }, startMsMax);
    afterEach(async () => {
      if (!killed) await running().rest();
    });
    afterAll(async () => {
      await probe?.subject[Symbol.asyncDispose]();
    });
    generationCases(running);
    requestCases(running);
    weightCases(running);
  });
}
