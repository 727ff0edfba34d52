/** What a simulated process does, written where a real one names its code: an actor's export name, a driver's entrypoint. */
export interface ActorScript {
  readonly constructMs: number;
  readonly fails: boolean;
  readonly neverReady: boolean;
  /** Ends with exit code 1 this long after it is ready; null: it lives. */
  readonly diesAfterMs: number | null;
  /** Ignores requests and SIGTERM. */
  readonly stubborn: boolean;
}

export interface DriverScript {
  /** Null: it runs until it is ended. */
  readonly endsAfterMs: number | null;
  readonly exitCode: number;
  readonly stubborn: boolean;
}

/** `steady`, `fails`, `never-ready`, `slow-3000` (ms to construct), `dies-after-1000`, `stubborn`; several joined by `+`. */
export function actorScript(text: string): ActorScript {
  let script: ActorScript = { constructMs: 20, fails: false, neverReady: false, diesAfterMs: null, stubborn: false };
  for (const word of text.split("+")) {
    const ms = Number(/-(\d+)$/.exec(word)?.[1] ?? 0);
    if (word === "fails") script = { ...script, fails: true };
    else if (word === "never-ready") script = { ...script, neverReady: true };
    else if (word === "stubborn") script = { ...script, stubborn: true };
    else if (word.startsWith("slow-")) script = { ...script, constructMs: ms };
    else if (word.startsWith("dies-after-")) script = { ...script, diesAfterMs: ms };
    else if (word !== "steady")
      throw new RangeError(
        `an actor's script is made of steady, fails, never-ready, stubborn, slow-<ms>, dies-after-<ms>; got ${JSON.stringify(word)}`,
      );
  }
  return script;
}

/** `runs`, `exits-<code>-after-<ms>`, `stubborn`; several joined by `+`. */
export function driverScript(text: string): DriverScript {
  let script: DriverScript = { endsAfterMs: null, exitCode: 0, stubborn: false };
  for (const word of text.split("+")) {
    const exits = /^exits-(\d+)-after-(\d+)$/.exec(word);
    if (exits !== null) script = { ...script, exitCode: Number(exits[1]), endsAfterMs: Number(exits[2]) };
    else if (word === "stubborn") script = { ...script, stubborn: true };
    else if (word !== "runs")
      throw new RangeError(`a driver's script is made of runs, stubborn, exits-<code>-after-<ms>; got ${JSON.stringify(word)}`);
  }
  return script;
}
