import type { Clock } from "@slime/core";
import { loadPromptCodec } from "@slime/data";
import { answerAll, answerPlaces } from "./answer-all.js";
import { type AnswerPlace, type AnswerSink, jsonSink, textSink } from "./answer-sink.js";
import { type AnsweringEngine, openEngine } from "./answering-engine.js";
import { type Answer, Asker } from "./ask.js";
import { encodePrompts, type PromptInput, readPrompts } from "./prompts.js";
import { type GenerateFlags, type GenerateSettings, readSettings } from "./settings.js";

/** What a command has of the world. */
export interface GenerateIo {
  readonly stdin: PromptInput;
  /** Answers. */
  readonly write: (text: string) => void;
  /** A person reads the answers. */
  readonly terminal: boolean;
  /** A line that may be overwritten, for a person; null: nobody reads it. */
  readonly status: ((text: string) => void) | null;
  readonly clock: Clock;
  readonly signal: AbortSignal;
}

/**
 * `slime generate`: opens the engine, asks, prints, and ends what it started, also when it fails.
 * @throws SlimeError of whatever went wrong first; the signal's reason.
 */
export async function runGenerate(flags: GenerateFlags, words: readonly string[], io: GenerateIo): Promise<void> {
  const settings = readSettings(flags, words);
  const asked = await readPrompts(flags, io.stdin);
  const phase = (text: string) => io.status?.(`\r\u001b[Kslime: ${text} …`);
  await using engine = await openEngine(settings.by, { clock: io.clock, signal: io.signal, onPhase: phase });
  io.status?.("\r\u001b[K");
  const directory = engine.modelDirectory;
  const model = directory === null ? null : { codec: await loadPromptCodec(directory), directory };
  const prompts = await encodePrompts(asked, settings, model, engine.contextLength);
  const places = answerPlaces(prompts, settings.answersPerPrompt);
  await using asker = new Asker(engine.url, { clock: io.clock, timeoutMs: settings.timeoutMs });
  const begunMs = io.clock.nowMs();
  const answers = await answerAll(asker, engine.url, places, settings, { sink: sinkOf(places, settings, io), signal: io.signal });
  io.status?.(`slime: ${summary(answers, engine, io.clock.nowMs() - begunMs)}\n`);
}

function sinkOf(places: readonly AnswerPlace[], { json, sampling }: GenerateSettings, { write, terminal }: GenerateIo): AnswerSink {
  return json ? jsonSink(places, write) : textSink({ places, stops: sampling.stop ?? [], write, terminal });
}

/** What a person may want to know at the end. */
function summary(answers: readonly Answer[], { name }: AnsweringEngine, ms: number): string {
  const tokens = answers.reduce((sum, { outputIds }) => sum + outputIds.length, 0);
  const cut = answers.filter(({ finishReason }) => finishReason.type === "length").length;
  const ends = cut === 0 ? "" : `; ${answers.length === 1 ? "cut" : `${cut} cut`} at --max-new-tokens or the end of the context`;
  return `${tokens} tokens in ${(ms / 1_000).toFixed(1)} s (${((tokens * 1_000) / Math.max(1, ms)).toFixed(1)} a second) from ${name}${ends}`;
}
