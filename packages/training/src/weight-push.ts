/**
 * The weight push as a versioned transaction over every live engine:
 * export → (fence → pause → flush → receive → verify → continue → canary → open) per engine, engines side by side.
 * W1 an engine serves only while `open`; W2 it opens only at the version committed last; W3 an engine that fails a step never opens:
 * it is quarantined and restarted; W4 pushes and catch-ups happen one after the other; W5 the calls an engine gets follow the order
 * of its states, whatever happens to the others; W6 a transfer that was given up has no say any more: what its engine answers late neither
 * opens nor quarantines the engine that has taken its place; W7 a fence that cannot be reached is asked again until the push's deadline:
 * a router that dies and comes back costs no engine; W8 one engine's fence is asked one thing at a time, and an engine that is quarantined
 * while its fence opens is shut out again right after.
 */
import type { EnginePushState, ExportedWeights, PauseMode, PushReport, WeightSync } from "@slime/backend";
import { abortable, type Clock, causeChain, deadline, factsOf, invariant, type Logger, SlimeError, sleep } from "@slime/core";
import { checkCanary, mismatch } from "./canary.js";
import type { EngineFleet, EngineHandle, TrainerGang } from "./ports.js";

export interface WeightPushParts {
  readonly fleet: EngineFleet;
  readonly trainer: Pick<TrainerGang, "exportWeights" | "probe">;
  readonly pauseMode: PauseMode;
  /** Token ids whose log-probs engine and trainer must agree on; null: no canary. */
  readonly canaryTokens: readonly number[] | null;
  readonly temperature: number;
  /** Largest mean difference of the canary's log-probs: engine and trainer of one arithmetic agree to 1e-6, other precisions are coarser by far. */
  readonly canaryTolerance: number;
  readonly clock: Clock;
  readonly log: Logger;
}

/** Between two tries of a fence whose router is away. */
const fenceRetryMs = 200;

/** What may follow what (W5). */
const following: Readonly<Record<EnginePushState, readonly EnginePushState[]>> = {
  open: ["fenced", "quarantined"],
  fenced: ["paused", "quarantined"],
  paused: ["received", "quarantined"],
  received: ["verified", "quarantined"],
  verified: ["committed", "quarantined"],
  committed: ["open", "quarantined"],
  quarantined: ["fenced"],
};

interface Standing {
  readonly state: EnginePushState;
  readonly version: number;
  /** The transfer that decides what becomes of this engine; an older one may still wait for an answer (W6). */
  readonly transfer: symbol;
}

interface Expected {
  readonly weights: ExportedWeights;
  readonly version: number;
  readonly canary: Float32Array | null;
}

/** A `WeightSync` with what else the loop asks of it. */
export interface WeightPush extends WeightSync {
  /** A router came back and knows nothing: engines that are open here open there again. */
  readonly reopen: () => Promise<void>;
  /** An engine is gone; what is known of this url is void. */
  readonly forget: (url: string) => void;
  readonly stateOf: (url: string) => EnginePushState | null;
  readonly version: () => number;
}

/** The coordinator of pushes over a fleet; it keeps what it knows of each engine's standing. */
export function weightPush(parts: WeightPushParts): WeightPush {
  const standings = new Map<string, Standing>();
  const fences = new Map<string, Promise<void>>();
  let last: Expected | null = null;
  let queue: Promise<unknown> = Promise.resolve();

  const inTurn = <T>(work: () => Promise<T>): Promise<T> => {
    const next = queue.then(work, work);
    queue = next.catch(() => {});
    return next;
  };

  /** W6. */
  const standingOf = (url: string, version: number, transfer: symbol): Standing => {
    const standing = standings.get(url);
    if (standing?.transfer === transfer) return standing;
    const what = `push of ${version} to ${url}`;
    throw new SlimeError("call.cancelled", `the transfer of version ${version} to ${url} was given up`, { what });
  };

  const enter = (url: string, state: EnginePushState, version: number, transfer: symbol) => {
    const standing = standingOf(url, version, transfer);
    invariant(following[standing.state].includes(state), `W5: engine ${url} went from ${standing.state} to ${state}`);
    standings.set(url, { state, version, transfer });
  };

  /** W8. */
  const atFence = (url: string, ask: () => Promise<void>): Promise<void> => {
    const asked = (fences.get(url) ?? Promise.resolve()).then(ask);
    const settled = asked
      .catch(() => {})
      .then(() => {
        if (fences.get(url) === settled) fences.delete(url);
      });
    fences.set(url, settled);
    return asked;
  };

  /** Ends a transfer that failed, unless it has no say any more (W6), and with it its engine (W3). */
  const quarantine = ({ url, id }: EngineHandle, version: number, transfer: symbol, reason: string) => {
    const standing = standings.get(url);
    if (standing?.transfer !== transfer) return;
    standings.set(url, { state: "quarantined", version, transfer: Symbol("none") });
    parts.log.warn("push.quarantined", { engine: id, url, version, reason });
    if (standing.state === "open")
      atFence(url, () => parts.fleet.fence.close(url)).catch((failure: unknown) =>
        parts.log.warn("push.fence_not_shut", { engine: id, reason: causeChain(failure).join(": ") }),
      );
    parts.fleet
      .restart(id, reason)
      .catch((failure: unknown) => parts.log.error("engine.restart.failed", { engine: id, reason: causeChain(failure).join(": ") }));
  };

  const exportAt = async (version: number, opId: string, timeoutMs: number): Promise<Expected> => {
    const weights = await parts.trainer.exportWeights({ opId: `${opId}/export`, timeoutMs }, { version });
    const canary =
      parts.canaryTokens === null
        ? null
        : await parts.trainer.probe({ opId: `${opId}/probe`, timeoutMs }, { tokens: parts.canaryTokens, temperature: parts.temperature });
    return { weights, version, canary };
  };

  const pushOne = async (handle: EngineHandle, expected: Expected, signal: AbortSignal): Promise<EngineResult> => {
    const { url } = handle;
    const transfer = Symbol(url);
    standings.set(url, { state: standings.get(url)?.state ?? "quarantined", version: standings.get(url)?.version ?? 0, transfer });
    try {
      const own = (ask: () => Promise<void>) =>
        atFence(url, async () => {
          standingOf(url, expected.version, transfer);
          await ask();
        });
      const fence = {
        close: () => own(() => parts.fleet.fence.close(url)),
        open: () => own(() => parts.fleet.fence.open(url, expected.version)),
      };
      // One engine that answers nothing must not hold the others' push.
      const transferMs = await abortable(
        transferTo(parts, handle, expected, signal, { fence, enter: (state) => enter(url, state, expected.version, transfer) }),
        signal,
      );
      return { url, state: "open", reason: null, transferMs };
    } catch (error) {
      const reason = causeChain(error).join(": ");
      quarantine(handle, expected.version, transfer, reason);
      return { url, state: "quarantined", reason, transferMs: 0 };
    }
  };

  const pushAll = async (
    handles: readonly EngineHandle[],
    expected: Expected,
    exportMs: number,
    timeoutMs: number,
  ): Promise<PushReport> => {
    const from = parts.clock.nowMs();
    using limit = deadline(parts.clock, timeoutMs, `push of weight version ${expected.version}`);
    const engines = await Promise.all(handles.map((handle) => pushOne(handle, expected, limit.signal)));
    const transferMs = exportMs + Math.max(0, ...engines.map((engine) => engine.transferMs));
    const controlMs = Math.max(0, exportMs + parts.clock.nowMs() - from - transferMs);
    if (engines.every((engine) => engine.state !== "open")) {
      const names = engines.map((engine) => engine.url);
      throw new SlimeError(
        "weights.push",
        `weight version ${expected.version} reached no engine: ${engines.map((engine) => `${engine.url}: ${engine.reason ?? "?"}`).join("; ") || "none lives"}`,
        { version: expected.version, phase: "transfer", engines: names },
      );
    }
    return {
      version: expected.version,
      engines: engines.map(({ url, state, reason }) => ({ url, state, reason })),
      bytes: expected.weights.bytes,
      transferMs,
      controlMs,
    };
  };

  return {
    push: ({ version, opId, timeoutMs }) =>
      inTurn(async () => {
        invariant(version >= (last?.version ?? 0), `W2: version ${version} after ${last?.version ?? 0}`);
        const from = parts.clock.nowMs();
        const expected = last?.version === version ? last : await exportAt(version, opId, timeoutMs);
        last = expected;
        return pushAll(parts.fleet.list(), expected, parts.clock.nowMs() - from, timeoutMs);
      }),
    catchUp: ({ url, version, timeoutMs }) =>
      inTurn(async () => {
        const handle = parts.fleet.list().find((engine) => engine.url === url);
        if (handle === undefined) throw new SlimeError("engine.unavailable", `engine ${url} is gone`, { engine: url, reason: "gone" });
        const standing = standings.get(url);
        const expected = last !== null && last.version >= version ? last : await exportAt(version, `catch-up-${version}`, timeoutMs);
        last = expected;
        if (standing?.state === "open" && standing.version === expected.version) {
          return { version: expected.version, engines: [{ url, state: "open", reason: null }], bytes: 0, transferMs: 0, controlMs: 0 };
        }
        return pushAll([handle], expected, 0, timeoutMs);
      }),
    reopen: () =>
      inTurn(async () => {
        for (const [url, { state, version }] of standings)
          if (state === "open") await atFence(url, () => parts.fleet.fence.open(url, version));
      }),
    forget: (url) => void standings.delete(url),
    lastExport: () => last?.weights ?? null,
    stateOf: (url) => standings.get(url)?.state ?? null,
    version: () => last?.version ?? 0,
  };
}

interface EngineResult {
  readonly url: string;
  readonly state: EnginePushState;
  readonly reason: string | null;
  readonly transferMs: number;
}

/** What a transfer moves apart from its engine: that engine's fence, and what is known of where it stands. */
interface TransferSteps {
  readonly fence: { readonly close: () => Promise<void>; readonly open: () => Promise<void> };
  readonly enter: (state: EnginePushState) => void;
}

/** All steps of one engine in their order; returns how long it received. */
async function transferTo(
  parts: WeightPushParts,
  { url, engine, id }: EngineHandle,
  expected: Expected,
  signal: AbortSignal,
  { fence, enter }: TransferSteps,
): Promise<number> {
  const { version, weights } = expected;
  await persist(parts, signal, fence.close);
  enter("fenced");
  await engine.pause(parts.pauseMode);
  enter("paused");
  // Requests that the other modes hold cannot be flushed.
  if (parts.pauseMode === "abort") await engine.flush();
  const from = parts.clock.nowMs();
  const source =
    weights.kind === "directory"
      ? { kind: weights.kind, path: weights.path }
      : { kind: weights.kind, path: weights.path, checksum: weights.checksum, bytes: weights.bytes, tensors: weights.tensors };
  const receipt = await engine.updateWeights({ version, source });
  const transferMs = parts.clock.nowMs() - from;
  enter("received");
  if (receipt.version !== String(version)) throw mismatch(id, version, `it says it holds version ${receipt.version}`);
  if (receipt.checksum !== null && receipt.checksum !== weights.checksum)
    throw mismatch(id, version, `its checksum is ${receipt.checksum}, the trainer's ${weights.checksum}`);
  enter("verified");
  await engine.resume();
  enter("committed");
  if (expected.canary !== null && parts.canaryTokens !== null)
    await checkCanary(
      { url, engine, id },
      version,
      { tokens: parts.canaryTokens, logProbs: expected.canary, temperature: parts.temperature, tolerance: parts.canaryTolerance },
      parts.log,
    );
  // Said first: an engine that was given up meanwhile must not be opened by a late answer.
  enter("open");
  await persist(parts, signal, fence.open);
  return transferMs;
}

/** W7. A router that has just come back does not know its engines yet, so `not_found` passes too. */
async function persist({ clock, log }: WeightPushParts, signal: AbortSignal, ask: () => Promise<void>): Promise<void> {
  for (;;) {
    try {
      return await ask();
    } catch (error) {
      if (!factsOf(error).retryable && !SlimeError.is(error, "not_found")) throw error;
      log.warn("push.fence_away", { reason: causeChain(error).join(": ") });
      await sleep(clock, fenceRetryMs, signal);
    }
  }
}
