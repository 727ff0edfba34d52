import type { FinishReason, WeightSpan } from "@slime/backend";
import type { Sampling } from "./sampling.js";
import { type EngineTokenizer, GrowingText } from "./tokenizer.js";

/** One sequence to generate or score, checked and with defaults filled in. */
export interface GenerateJob {
  readonly rid: string;
  readonly inputIds: readonly number[];
  readonly sampling: Sampling;
  /** 0: score the input only. */
  readonly maxNewTokens: number;
  readonly minNewTokens: number;
  readonly stop: readonly string[];
  /** Ids that end the output, the model's own included; empty under ignore_eos. */
  readonly stopIds: readonly number[];
  readonly skipSpecialTokens: boolean;
  readonly noStopTrim: boolean;
  readonly returnLogProb: boolean;
  /** Input log-probs from this position on; null: none. */
  readonly logProbStart: number | null;
  /** Tokens between chunks of a stream. */
  readonly streamInterval: number;
}

/** Where a sequence stands. Only `running` holds a slot and pages (Q1). */
export type SequenceState =
  | { readonly kind: "waiting" }
  | { readonly kind: "running"; readonly slot: number; readonly pages: readonly number[] }
  | { readonly kind: "finished"; readonly reason: FinishReason }
  /** The engine's own fault: answered as an error, never as a result. */
  | { readonly kind: "failed"; readonly status: number; readonly message: string };

/** Who waits for a sequence. Called within the scheduler's step: must not throw, nor call the scheduler. */
export interface SequenceListener {
  readonly progressed?: (sequence: Sequence) => void;
  readonly ended: (sequence: Sequence) => void;
}

/** One sequence and all it has produced so far. */
export class Sequence {
  readonly job: GenerateJob;
  readonly listener: SequenceListener;
  readonly outputIds: number[] = [];
  readonly outputLogProbs: number[] = [];
  /** From `logProbStart` on; the first is null. */
  readonly inputLogProbs: (number | null)[] = [];
  readonly spans: WeightSpan[] = [];
  /** The version of the newest weights that took part; that of the engine when it ended without a token. */
  weightVersion = "";
  state: SequenceState = { kind: "waiting" };
  /** Tokens whose keys and values are in the cache. */
  computed = 0;
  retractions = 0;
  readonly receivedMs: number;
  readonly receivedWallMs: number;
  admittedMs: number | null = null;
  firstTokenMs: number | null = null;
  endedMs: number | null = null;
  readonly #text: GrowingText | null;

  constructor(
    job: GenerateJob,
    listener: SequenceListener,
    at: { readonly nowMs: number; readonly wallMs: number },
    tokenizer: EngineTokenizer | null,
  ) {
    this.job = job;
    this.listener = listener;
    this.receivedMs = at.nowMs;
    this.receivedWallMs = at.wallMs;
    const watched = job.stop.length > 0 || listener.progressed !== undefined;
    this.#text = tokenizer !== null && watched ? new GrowingText(tokenizer, job.skipSpecialTokens) : null;
    if (job.logProbStart !== null && job.logProbStart < job.inputIds.length) this.inputLogProbs.push(null);
  }

  /** Tokens so far, input and output. */
  get length(): number {
    return this.job.inputIds.length + this.outputIds.length;
  }

  /** Tokens the cache must hold at worst. */
  get lengthMax(): number {
    return this.job.inputIds.length + this.job.maxNewTokens;
  }

  /** The text while it grows; "" when nobody watches it. */
  get growingText(): string {
    return this.#text?.text ?? "";
  }

  token(position: number): number {
    const { inputIds } = this.job;
    return (position < inputIds.length ? inputIds[position] : this.outputIds[position - inputIds.length]) ?? -1;
  }

  /** The position whose log-probability the row at `position` still owes, or null. Positions are recorded in ascending order, each once. */
  owedInputLogProb(position: number): number | null {
    const { logProbStart, inputIds } = this.job;
    if (logProbStart === null) return null;
    const target = position + 1;
    return target < inputIds.length && target === logProbStart + this.inputLogProbs.length ? target : null;
  }

  /** Takes the next token; returns why the sequence ends with it, or null. A stop wins over the length, so that an answer that ends with its last allowed token counts as ended. */
  accept(token: number, logProb: number | null, version: string): FinishReason | null {
    const index = this.outputIds.length;
    this.outputIds.push(token);
    if (logProb !== null) this.outputLogProbs.push(logProb);
    this.weightVersion = version;
    const span = this.spans.at(-1);
    const number = versionNumber(version);
    if (span !== undefined && span.version === number) this.spans[this.spans.length - 1] = { ...span, to: index + 1 };
    else this.spans.push({ version: number, from: index, to: index + 1, mixed: false });
    if (this.job.stopIds.includes(token)) return { type: "stop", matched: token };
    const stop = this.#matchedStop();
    if (stop !== null) return { type: "stop", matched: stop };
    if (this.outputIds.length >= this.job.maxNewTokens) return { type: "length", length: this.outputIds.length };
    return null;
  }

  /** Ids that may not be chosen next: those that would end the output before `min_new_tokens`. */
  banned(): readonly number[] {
    return this.outputIds.length < this.job.minNewTokens ? this.job.stopIds : [];
  }

  #matchedStop(): string | null {
    if (this.#text === null) return null;
    const before = this.#text.extend(this.outputIds);
    for (const stop of this.job.stop) {
      if (this.#text.text.indexOf(stop, Math.max(0, before - stop.length + 1)) >= 0) return stop;
    }
    return null;
  }

  /** The output as text: without the stop token or from the stop string on, unless `no_stop_trim`. */
  finalText(tokenizer: EngineTokenizer | null): string {
    if (tokenizer === null) return "";
    const matched =
      this.state.kind === "finished" && this.state.reason.type === "stop" && !this.job.noStopTrim ? this.state.reason.matched : null;
    const ids = typeof matched === "number" ? this.outputIds.slice(0, -1) : this.outputIds;
    const text = tokenizer.decode(ids, this.job.skipSpecialTokens);
    const cut = typeof matched === "string" ? text.indexOf(matched) : -1;
    return cut < 0 ? text : text.slice(0, cut);
  }
}

/** Versions are whole numbers sent as text; a server's "default" is the weights it started with: 0. */
export function versionNumber(version: string): number {
  return /^\d{1,15}$/.test(version) ? Number(version) : 0;
}
