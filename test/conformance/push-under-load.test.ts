import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { GenerateResult, PauseMode } from "@slime/backend";
import { type StagedHandle, same, scoreTokens } from "@slime/backend/conformance";
import { silentLogger, systemClock } from "@slime/core";
import { HttpEngine, httpRouter, startRouter } from "@slime/router";
import { weightPush } from "@slime/training";
import { describe, expect, it } from "vitest";
import { embeddedPush } from "./embedded-push.js";
import { op } from "./push-subject.js";

const tokens = 60;
const callers = 6;
const pushes = 4;

interface Answer {
  /** Versions that may take part: from the one committed when it was sent to the one being pushed when it came back. */
  readonly from: number;
  readonly to: number;
  readonly result: GenerateResult;
}

/** Everything at once: real engines behind the real router, callers that never stop, and a push after every step. */
async function pushUnderLoad(pauseMode: PauseMode): Promise<readonly Answer[]> {
  const closers: (() => Promise<void>)[] = [];
  try {
    return await run(pauseMode, (close) => void closers.push(close));
  } finally {
    for (const close of closers.reverse()) await close();
  }
}

async function run(pauseMode: PauseMode, defer: (close: () => Promise<void>) => void): Promise<readonly Answer[]> {
  const folder = await mkdtemp(join(tmpdir(), "slime-load-"));
  defer(() => rm(folder, { recursive: true }));
  const trained = await embeddedPush.startTrainer(folder, null);
  defer(trained.close);
  const server = await startRouter();
  defer(server.close);
  const router = httpRouter(server.url);
  defer(router.close);
  const handles: StagedHandle[] = [];
  for (const id of ["a", "b"]) {
    const { engine, close } = await embeddedPush.startEngine(id, null);
    defer(close);
    await router.add(engine.url, { fenced: true });
    handles.push({ id, url: engine.url, engine });
  }
  const restarts: string[] = [];
  const sync = weightPush({
    fleet: {
      list: () => handles,
      fence: { close: router.fence, open: router.open },
      start: async () => {},
      restart: async (id) => void restarts.push(id),
      subscribe: () => ({ [Symbol.dispose]() {} }),
    },
    trainer: {
      exportWeights: async (asked, { version }) =>
        trained.merge(
          (await trained.trainer.exportWeights(asked, same({ version, directory: folder }))).flatMap(({ value }) =>
            value === null ? [] : [value],
          ),
          version,
        ),
      probe: (asked, request) => scoreTokens(trained.trainer, asked, request.tokens),
    },
    pauseMode,
    canaryTokens: [3, 4, 5],
    canaryTolerance: 1e-4,
    temperature: 1,
    clock: systemClock,
    log: silentLogger,
  });

  let committed = 0;
  let pushing = 1;
  const answers: Answer[] = [];
  const front = new HttpEngine(server.url);
  defer(() => front.close());
  const caller = async (number: number) => {
    for (let i = 0; committed < pushes; i++) {
      const from = committed;
      const result = await front.generate(
        {
          rid: `${number}-${i}`,
          input_ids: [3, 4 + number],
          sampling_params: { temperature: 1, top_p: 1, top_k: -1, max_new_tokens: tokens, ignore_eos: true },
          return_logprob: true,
        },
        { timeoutMs: 30_000 },
      );
      answers.push({ from, to: pushing, result });
    }
  };
  // The callers begin before anything is open: they wait at the router.
  const calling = Promise.all(Array.from({ length: callers }, (_, number) => caller(number)));
  for (; pushing <= pushes; pushing++) {
    if (pushing > 1) await trained.train(op());
    const { engines } = await sync.push({ version: pushing, opId: `load-${pauseMode}-${pushing}`, timeoutMs: 20_000 });
    expect(engines.map(({ state }) => state)).toEqual(["open", "open"]);
    committed = pushing;
    const enough = answers.length + callers;
    while (pushing < pushes && answers.length < enough) await new Promise<void>((resolve) => setImmediate(resolve));
  }
  await calling;
  expect(restarts).toEqual([]);
  return answers;
}

describe("pushes under load, behind the router", () => {
  it.each<PauseMode>(["abort", "retract", "in_place"])(
    "mode %s: every request is answered, by versions that were open while it ran, and says which",
    async (mode) => {
      const answers = await pushUnderLoad(mode);
      for (const { from, to, result } of answers) {
        const { weightSpans, outputIds, outputLogProbs, finishReason } = result;
        if (mode !== "abort") expect(finishReason).toEqual({ type: "length", length: tokens });
        expect(outputLogProbs).toHaveLength(outputIds.length);
        weightSpans.forEach((span, i) => {
          expect(span).toMatchObject({ from: weightSpans[i - 1]?.to ?? 0, mixed: false });
          expect(span.version).toBeGreaterThan(weightSpans[i - 1]?.version ?? from - 1);
          expect(span.version).toBeLessThanOrEqual(to);
        });
        expect(weightSpans.at(-1)?.to ?? 0).toBe(outputIds.length);
        if (mode === "abort") expect(weightSpans.length).toBeLessThanOrEqual(1);
      }
      const disturbed = answers.filter(({ result }) =>
        mode === "abort" ? result.finishReason.type === "abort" : result.weightSpans.length > 1,
      );
      expect(disturbed.length, "requests that a push met").toBeGreaterThan(0);
      expect(new Set(answers.flatMap(({ result }) => result.weightSpans.map(({ version }) => version))).size).toBeGreaterThanOrEqual(
        pushes - 1,
      );
      expect(answers.every(({ result }) => result.weightVersion !== "0")).toBe(true);
    },
  );
});
