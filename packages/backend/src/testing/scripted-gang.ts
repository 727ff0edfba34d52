import { type ChildProcess, spawn } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";
import { type Clock, type ErrorCode, type ErrorDetails, SlimeError, systemClock } from "@slime/core";
import { gangOf } from "../gang.js";
import type {
  ExportedWeights,
  LogProbsRequest,
  Op,
  SaveRequest,
  TokenValues,
  Trainer,
  TrainerInfo,
  TrainerInit,
  TrainerRank,
  TrainStepRequest,
  TrainStepResult,
} from "../trainer.js";

/** What a rank does wrong, once, the next time it does `op`. `half`: with half of a push written. */
export interface ScriptedFault {
  readonly op: string;
  readonly moment: "start" | "half" | "answer";
  readonly kind: "die" | "hang" | "late" | "fail" | "twice";
}

interface Answer {
  readonly id: number;
  readonly value?: unknown;
  readonly failure?: { readonly code: string; readonly message: string; readonly details: unknown };
}

/** One rank: a Python process of the standard library only, spoken to in JSON lines. */
export class ScriptedRank implements TrainerRank {
  readonly pid: number;
  /** Answers to calls that nobody waits for any more: late ones and second ones. */
  strayAnswers = 0;
  /** Something was planned for it, or went wrong: what its peers sent may still lie in its sockets, so nobody else should use it. */
  spoiled = false;
  readonly listening: Promise<void>;
  readonly exited: Promise<void>;
  readonly #child: ChildProcess;
  readonly #pending = new Map<number, { readonly resolve: (value: unknown) => void; readonly reject: (error: unknown) => void }>();
  #nextId = 1;
  #gone: SlimeError | null = null;

  constructor(rank: number, dataParallel: number, folder: string) {
    const script = fileURLToPath(new URL("../../python/scripted_rank.py", import.meta.url));
    this.#child = spawn("python3", ["-u", script, String(rank), String(dataParallel), folder], {
      stdio: ["ignore", "ignore", "ignore", "pipe", "pipe"],
    });
    this.pid = this.#child.pid ?? 0;
    this.listening = new Promise((resolve, reject) => this.#pending.set(0, { resolve: () => resolve(), reject }));
    const output = this.#child.stdio[4];
    if (output !== null && output !== undefined && "read" in output)
      createInterface({ input: output }).on("line", (line) => this.#hear(JSON.parse(line)));
    this.#child.stdio[3]?.on("error", () => {});
    this.exited = new Promise((resolve) => {
      this.#child.on("exit", (exitCode, signal) => {
        const what = `rank ${rank}`;
        this.spoiled = true;
        this.#gone = new SlimeError("process.exited", `${what} ended with ${signal ?? `exit code ${exitCode}`}`, {
          what,
          exitCode,
          signal,
        });
        for (const waiting of this.#pending.values()) waiting.reject(this.#gone);
        this.#pending.clear();
        resolve();
      });
    });
  }

  plan(fault: ScriptedFault): void {
    this.spoiled = true;
    this.#say({ fault });
  }

  /** Lets a `late` rank go on. */
  release(): void {
    this.#say({ release: true });
  }

  kill(): void {
    this.#child.kill("SIGKILL");
  }

  init = (op: Op, request: TrainerInit) => this.#call<TrainerInfo>("init", op, request);
  trainStep = (op: Op, request: TrainStepRequest) => this.#call<TrainStepResult>("trainStep", op, request);
  exportWeights = (op: Op, request: { readonly version: number; readonly directory: string }) =>
    this.#call<ExportedWeights | null>("exportWeights", op, request);
  save = (op: Op, request: SaveRequest) => this.#call<{ readonly files: readonly string[] }>("save", op, request);
  load = (op: Op, request: { readonly directory: string }) => this.#call<TrainerInfo>("load", op, request);
  updateRef = (op: Op) => this.#call<void>("updateRef", op, null);
  sleep = (op: Op) => this.#call<void>("sleep", op, null);
  wake = (op: Op) => this.#call<void>("wake", op, null);

  async computeLogProbs(op: Op, request: LogProbsRequest): Promise<TokenValues | null> {
    const made = await this.#call<{ readonly values_T: readonly number[] } | null>("computeLogProbs", op, request);
    return made === null ? null : { values_T: Float32Array.from(made.values_T) };
  }

  async close(): Promise<void> {
    this.kill();
    await this.exited;
  }

  #call<T>(name: string, op: Op, request: unknown): Promise<T> {
    if (this.#gone !== null) return Promise.reject(this.#gone);
    const id = this.#nextId++;
    return new Promise<T>((resolve, reject) => {
      const stop = () => {
        this.spoiled = true;
        this.#say({ abort: id });
      };
      op.signal?.addEventListener("abort", stop, { once: true });
      const over = () => op.signal?.removeEventListener("abort", stop);
      this.#pending.set(id, {
        resolve: (value) => {
          over();
          resolve(value as T);
        },
        reject: (error) => {
          over();
          reject(error);
        },
      });
      this.#say({ op: name, opId: op.opId, id, request });
    });
  }

  #hear(answer: Answer): void {
    const waiting = this.#pending.get(answer.id);
    this.#pending.delete(answer.id);
    if (waiting === undefined || answer.failure !== undefined) this.spoiled = true;
    if (waiting === undefined) this.strayAnswers++;
    else if (answer.failure === undefined) waiting.resolve(answer.value);
    else
      waiting.reject(
        new SlimeError(answer.failure.code as ErrorCode, answer.failure.message, answer.failure.details as ErrorDetails[ErrorCode]),
      );
  }

  #say(message: object): void {
    const input = this.#child.stdio[3];
    if (this.#gone !== null || input === null || input === undefined || !("write" in input)) return;
    input.write(`${JSON.stringify(message, plain)}\n`);
  }
}

/** Typed arrays as lists; what JSON cannot say (NaN) becomes null. */
function plain(_key: string, value: unknown): unknown {
  return ArrayBuffer.isView(value) && !(value instanceof DataView) ? Array.from(value as Float32Array) : value;
}

export interface ScriptedGang extends AsyncDisposable {
  readonly trainer: Trainer;
  readonly ranks: readonly ScriptedRank[];
}

/** Starts pipeline 2 × data parallel `dataParallel` ranks; ready for `init`. Rank = stage · dataParallel + replica. */
export async function startScriptedGang(dataParallel: number, settleMsMax: number, clock: Clock = systemClock): Promise<ScriptedGang> {
  const folder = mkdtempSync(join(tmpdir(), "slime-gang-"));
  const ranks = Array.from({ length: 2 * dataParallel }, (_, rank) => new ScriptedRank(rank, dataParallel, folder));
  await Promise.all(ranks.map((rank) => rank.listening));
  return {
    trainer: gangOf(ranks, clock, settleMsMax),
    ranks,
    async [Symbol.asyncDispose]() {
      await Promise.all(ranks.map((rank) => rank.close()));
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

/** Four Python processes take a second to start, so a gang that nothing spoiled goes from one test to the next; `init` makes it new. */
export class ScriptedGangs {
  readonly #idle: ScriptedGang[] = [];
  readonly #dataParallel: number;
  readonly #settleMsMax: number;

  constructor(dataParallel: number, settleMsMax: number) {
    this.#dataParallel = dataParallel;
    this.#settleMsMax = settleMsMax;
  }

  /** A gang before its `init`. Disposing gives it back, or ends it when it was spoiled. Op ids must differ over all its users. */
  async take(): Promise<ScriptedGang> {
    const gang = this.#idle.pop() ?? (await startScriptedGang(this.#dataParallel, this.#settleMsMax));
    return {
      ...gang,
      [Symbol.asyncDispose]: async () => {
        if (gang.ranks.some((rank) => rank.spoiled)) await gang[Symbol.asyncDispose]();
        else this.#idle.push(gang);
      },
    };
  }

  /** Ends all that are not in use. */
  async close(): Promise<void> {
    await Promise.all(this.#idle.splice(0).map((gang) => gang[Symbol.asyncDispose]()));
  }
}
