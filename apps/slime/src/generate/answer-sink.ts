import { SlimeError } from "@slime/core";
import type { Answer } from "./ask.js";
import { oneLine, shownLength, withoutControl } from "./printed-text.js";
import type { EncodedPrompt } from "./prompts.js";

/** Which answer of how many. */
export interface AnswerPlace {
  readonly prompt: EncodedPrompt;
  readonly promptIndex: number;
  readonly answerIndex: number;
}

/** Where answers go. They come in any order and at the same time; they leave in the order of their places. */
export interface AnswerSink {
  /** Null: growing text is of no use, only whole answers are. */
  readonly grow: ((at: number, text: string) => void) | null;
  readonly done: (at: number, answer: Answer) => void;
  /** After the last answer, or at the first failure: what has begun is ended with a line break. */
  readonly end: () => void;
}

export interface TextSinkOptions {
  readonly places: readonly AnswerPlace[];
  readonly stops: readonly string[];
  readonly write: (text: string) => void;
  /** A person reads: control characters are made visible. */
  readonly terminal: boolean;
}

/** Longest prompt in a heading. */
const headingCharsMax = 100;

/** Answers as text, the first unfinished one while it grows. Several have headings. */
export function textSink({ places, stops, write, terminal }: TextSinkOptions): AnswerSink {
  const texts = new Map<number, { text: string; ended: boolean }>();
  const several = places.length > 1;
  const answersEach = places.filter(({ promptIndex }) => promptIndex === 0).length;
  let current = 0;
  let shown = 0;
  let open = false;
  const say = (text: string) => {
    if (text === "") return;
    write(terminal ? withoutControl(text) : text);
  };
  const heading = (at: number): string => {
    const place = places[at];
    if (!several || place === undefined) return "";
    const { prompt } = place.prompt;
    const asked = typeof prompt === "string" ? prompt : (prompt.at(-1)?.content ?? "");
    const number = answersEach > 1 ? `${place.promptIndex + 1}.${place.answerIndex + 1}` : String(place.promptIndex + 1);
    return `${at === 0 ? "" : "\n"}[${number}] ${oneLine(asked, headingCharsMax)}\n`;
  };
  const advance = () => {
    for (let entry = texts.get(current); entry !== undefined; entry = texts.get(current)) {
      if (!open) say(heading(current));
      open = true;
      const until = entry.ended ? entry.text.length : shownLength(entry.text, stops);
      if (until > shown) say(entry.text.slice(shown, until));
      shown = Math.max(shown, until);
      if (!entry.ended) return;
      say("\n");
      texts.delete(current);
      current++;
      shown = 0;
      open = false;
    }
  };
  return {
    grow: (at, text) => {
      texts.set(at, { text, ended: false });
      if (at === current) advance();
    },
    done: (at, { text }) => {
      texts.set(at, { text, ended: true });
      if (at === current) advance();
    },
    end: () => {
      if (open && shown > 0) say("\n");
      open = false;
    },
  };
}

/** Answers as JSON, one object a line, in order. */
export function jsonSink(places: readonly AnswerPlace[], write: (text: string) => void): AnswerSink {
  const waiting = new Map<number, string>();
  let current = 0;
  return {
    grow: null,
    done: (at, answer) => {
      const place = places[at];
      if (place === undefined) throw new RangeError(`answer ${at} of ${places.length}`);
      waiting.set(at, `${JSON.stringify(answerJson(place, answer))}\n`);
      for (let line = waiting.get(current); line !== undefined; line = waiting.get(current)) {
        write(line);
        waiting.delete(current);
        current++;
      }
    },
    end: () => {},
  };
}

function answerJson({ prompt, promptIndex, answerIndex }: AnswerPlace, answer: Answer): Readonly<Record<string, unknown>> {
  return {
    promptIndex,
    answerIndex,
    prompt: prompt.prompt,
    promptText: prompt.text,
    promptIds: prompt.inputIds,
    promptTokens: answer.promptTokens,
    text: answer.text,
    outputIds: answer.outputIds,
    outputLogProbs: answer.outputLogProbs,
    finishReason: answer.finishReason,
    weightVersion: answer.weightVersion,
  };
}

/** An answer that was cut short by the engine is a failure to whoever asked. @throws SlimeError `engine.unavailable`. */
export function assertAnswered(url: string, { finishReason }: Answer): void {
  if (finishReason.type !== "abort") return;
  throw new SlimeError("engine.unavailable", `${url} gave the answer up: ${finishReason.message}`, {
    engine: url,
    reason: finishReason.message,
  });
}
