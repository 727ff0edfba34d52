import type { AnswerPlace, AnswerSink } from "./answer-sink.js";
import { assertAnswered } from "./answer-sink.js";
import type { Answer, Asker } from "./ask.js";
import type { EncodedPrompt } from "./prompts.js";
import type { GenerateSettings } from "./settings.js";

/** Questions asked at the same time: engines batch them. */
export const questionsAtOnceMax = 32;

/** Every answer's place: prompt by prompt, its answers side by side. */
export function answerPlaces(prompts: readonly EncodedPrompt[], answersPerPrompt: number): readonly AnswerPlace[] {
  return prompts.flatMap((prompt, promptIndex) =>
    Array.from({ length: answersPerPrompt }, (_, answerIndex) => ({ prompt, promptIndex, answerIndex })),
  );
}

/**
 * Asks for all answers, `questionsAtOnceMax` at a time, and gives them to the sink.
 * Answer i of a prompt is drawn with seed + i, as in a rollout's group. The first failure ends the others.
 * @throws what `Asker.ask` throws.
 */
export async function answerAll(
  asker: Asker,
  url: string,
  places: readonly AnswerPlace[],
  settings: Pick<GenerateSettings, "sampling" | "seed" | "json">,
  { sink, signal }: { readonly sink: AnswerSink; readonly signal: AbortSignal },
): Promise<readonly Answer[]> {
  const failed = new AbortController();
  const until = AbortSignal.any([signal, failed.signal]);
  const answers: Answer[] = [];
  let next = 0;
  const work = async () => {
    for (let at = next++; at < places.length; at = next++) {
      const place = places[at];
      if (place === undefined || until.aborted) return;
      const seed = settings.seed === null ? null : settings.seed + place.answerIndex;
      const question = { prompt: place.prompt, sampling: settings.sampling, seed, logProbs: settings.json };
      const { grow } = sink;
      const answer = await asker.ask(question, until, grow === null ? null : (text) => grow(at, text));
      assertAnswered(url, answer);
      answers[at] = answer;
      sink.done(at, answer);
    }
  };
  const workers = Array.from({ length: Math.min(questionsAtOnceMax, places.length) }, async () => {
    try {
      await work();
    } catch (error) {
      failed.abort(error);
      throw error;
    }
  });
  try {
    const ends = await Promise.allSettled(workers);
    signal.throwIfAborted();
    if (failed.signal.aborted) throw failed.signal.reason;
    for (const end of ends) if (end.status === "rejected") throw end.reason;
    return answers;
  } finally {
    sink.end();
  }
}
