import type {
  Engine,
  EngineInfo,
  EngineLoad,
  GenerateRequest,
  GenerateResult,
  PauseMode,
  WeightReceipt,
  WeightUpdate,
} from "@slime/backend";
import { type Clock, type Logger, SlimeError } from "@slime/core";
import { HttpEngine, refusalText, replyJson } from "@slime/router";
import { requireFeature, type ServerCapabilities } from "./capabilities.js";
import { type ControlResult, EngineControl } from "./engine-control.js";
import { type ControlCall, type EngineState, type MemoryTag, memoryTags } from "./engine-state.js";
import { checkRequest, type RequestBounds } from "./request-check.js";
import { WeightCrossings } from "./weight-crossings.js";
import type { WeightHelper } from "./weight-helper-port.js";
import { bucketBytesMax } from "./weight-source.js";
import { WeightUpdater } from "./weight-update.js";

export interface AdapterLimits {
  /** For calls that answer at once. */
  readonly controlTimeoutMs: number;
  /** A pause by abort waits until every request has ended. */
  readonly pauseTimeoutMs: number;
  /** For each call that carries weights or moves memory; unpaused, an update waits for the requests that run. */
  readonly updateTimeoutMs: number;
  /** A flush waits this long for what was just aborted. */
  readonly flushWaitMs: number;
  readonly bucketBytesMax: number;
  /** Chunks of one stream: each repeats all before it, so a longer answer comes in longer steps. */
  readonly streamChunksMax: number;
}

export const defaultAdapterLimits: AdapterLimits = {
  controlTimeoutMs: 30_000,
  pauseTimeoutMs: 60_000,
  updateTimeoutMs: 180_000,
  flushWaitMs: 5_000,
  bucketBytesMax,
  streamChunksMax: 256,
};

export interface HttpServerEngineAdapterOptions {
  readonly url: string;
  readonly capabilities: ServerCapabilities;
  readonly vocabularySize: number;
  /** Longest sequence, prompt and response together. */
  readonly contextLength: number;
  /** How an export in shared memory gets in: by tensor through `helper`, or written to `scratch` and loaded from there. */
  readonly transport: "tensor" | "disk";
  readonly helper: WeightHelper | null;
  /** The directory the server was started with, whose shapes weights must have. Default: where its weights are now from, as it says. */
  readonly modelPath?: string;
  /** A directory of this engine's own, for `transport: "disk"`. */
  readonly scratch?: string;
  readonly clock: Clock;
  readonly log: Logger;
  readonly limits?: Partial<AdapterLimits>;
}

/** What POST /weights_checker does: sums, or a comparison with weights remembered or overwritten before. */
export type WeightsCheck = "checksum" | "snapshot" | "compare" | "reset_tensors";

/** A group of processes that broadcasts weights, as torch.distributed names it. The other end joins as rank 0 meanwhile. */
export interface UpdateGroup {
  readonly name: string;
  readonly masterAddress: string;
  readonly masterPort: number;
  readonly rankOffset: number;
  readonly worldSize: number;
  readonly backend: "nccl" | "gloo";
}

/**
 * A stock SGLang server as an `Engine`, so that no call of ours can end it: requests are checked before they are sent (an id outside the
 * vocabulary kills a server), weights before they are loaded, and every call against the server's state (engine-state.ts).
 * It owns its connections; the process and the helper are others'.
 */
export class HttpServerEngineAdapter implements Engine {
  readonly url: string;
  readonly capabilities: ServerCapabilities;
  readonly #options: HttpServerEngineAdapterOptions;
  readonly #limits: AdapterLimits;
  readonly #bounds: RequestBounds;
  readonly #http: HttpEngine;
  readonly #control: EngineControl;
  readonly #updater: WeightUpdater;
  readonly #crossings: WeightCrossings;
  #warned = false;

  constructor(options: HttpServerEngineAdapterOptions) {
    const { url, capabilities, clock, log } = options;
    this.url = url;
    this.capabilities = capabilities;
    this.#options = options;
    this.#limits = { ...defaultAdapterLimits, ...options.limits };
    this.#bounds = { vocabularySize: options.vocabularySize, contextLength: options.contextLength };
    this.#http = new HttpEngine(url, { clock, controlTimeoutMs: this.#limits.controlTimeoutMs });
    this.#control = new EngineControl(url, { weightsBackup: capabilities.weightsBackup }, clock, log);
    this.#crossings = new WeightCrossings(capabilities.overlap);
    this.#updater = new WeightUpdater({
      control: this.#control,
      capabilities,
      modelPath: options.modelPath ?? capabilities.modelPath,
      transport: options.transport,
      helper: options.helper,
      scratch: options.scratch ?? null,
      updateTimeoutMs: this.#limits.updateTimeoutMs,
      bucketBytesMax: this.#limits.bucketBytesMax,
    });
  }

  /** What we made of the server: for health judges, which judge only what runs. */
  get state(): EngineState {
    return this.#control.state;
  }

  /** Its process has ended: from now on every call fails at once, as unavailable. */
  end(reason: string): void {
    this.#control.end(reason);
  }

  async generate(request: GenerateRequest, options: Parameters<Engine["generate"]>[1]): Promise<GenerateResult> {
    checkRequest(this.url, request, this.#bounds);
    this.#control.check({ kind: "generate" });
    const mark = this.#crossings.mark;
    const result = await this.#http.generate(options.onTokens === undefined ? request : this.#paced(request), options);
    if (this.capabilities.weightSpans) return result;
    if (options.onTokens !== undefined) return { ...result, weightSpans: this.#crossings.soften(result.weightSpans) };
    const mixed = this.#crossings.crossed(mark);
    return { ...result, weightSpans: result.weightSpans.map((span) => ({ ...span, mixed })) };
  }

  async info(): Promise<EngineInfo> {
    this.#control.check({ kind: "observe" });
    return { ...(await this.#http.info()), ...this.#bounds };
  }

  async load(): Promise<EngineLoad> {
    this.#control.check({ kind: "observe" });
    return this.#http.load();
  }

  /** Makes the server generate one token, which takes it a second. @throws `engine.state` unless it runs: only then does the answer mean anything. */
  async health(timeoutMs: number): Promise<void> {
    this.#control.check({ kind: "health" });
    const { status, body } = await this.#control.get("/health_generate", timeoutMs);
    if (status === 200) return;
    const reason = `/health_generate answered ${status}: ${refusalText(body)}`;
    throw new SlimeError("engine.unavailable", `${this.url}${reason}`, { engine: this.url, reason });
  }

  async abort(target: Parameters<Engine["abort"]>[0]): Promise<void> {
    this.#control.check({ kind: "abort" });
    return this.#http.abort(target);
  }

  async pause(mode: PauseMode): Promise<void> {
    await this.#control.post({ kind: "pause", mode }, "/pause_generation", { mode }, this.#limits.pauseTimeoutMs);
  }

  async resume(): Promise<void> {
    await this.#control.post({ kind: "resume" }, "/continue_generation", {}, this.#limits.controlTimeoutMs);
  }

  /** @throws `engine.refused` while requests run or are held. */
  async flush(): Promise<void> {
    const { flushWaitMs, controlTimeoutMs } = this.#limits;
    const seconds = this.#holds() ? 0 : flushWaitMs / 1000;
    await this.#control.post({ kind: "flush" }, `/flush_cache?timeout=${seconds}`, {}, flushWaitMs + controlTimeoutMs);
  }

  async updateWeights(update: WeightUpdate): Promise<WeightReceipt> {
    const { version } = update;
    const call = { kind: "update", flush: false, parts: this.#updater.partsOf(update) } as const;
    const { clock, log } = this.#options;
    const from = clock.nowMs();
    await this.#crossing(call, version, () => this.#updater.load(update));
    this.#warnOfPrefixes();
    log.info("engine.updated", { url: this.url, version, parts: call.parts, ms: Math.round(clock.nowMs() - from) });
    // A stock server sums what it holds under names and in a way of its own: nothing to compare with.
    return { version: String(version), checksum: null };
  }

  /** Gives memory back to the card. After `pause("abort")` and `flush()` only. @throws `unsupported`, `engine.state`. */
  async release(tags: readonly MemoryTag[] = memoryTags): Promise<void> {
    requireFeature(this.url, this.capabilities, "memorySaver");
    await this.#control.post({ kind: "release", tags }, "/release_memory_occupation", { tags }, this.#limits.updateTimeoutMs);
  }

  /** Takes released memory again; weights come back empty unless the server keeps them (--enable-weights-cpu-backup): push before `resume`. */
  async resumeMemory(tags: readonly MemoryTag[] = memoryTags): Promise<void> {
    requireFeature(this.url, this.capabilities, "memorySaver");
    await this.#control.post({ kind: "regain", tags }, "/resume_memory_occupation", { tags }, this.#limits.updateTimeoutMs);
  }

  /** What the server computes over its weights: its reply, names and sums in its own manner. @throws `engine.refused` when a comparison fails. */
  async checkWeights(action: WeightsCheck): Promise<Readonly<Record<string, unknown>>> {
    requireFeature(this.url, this.capabilities, "weightsChecker");
    const reply = await this.#control.post({ kind: "check-weights" }, "/weights_checker", { action }, this.#limits.updateTimeoutMs);
    return replyJson(this.url, reply);
  }

  async joinUpdateGroup({ name, masterAddress, masterPort, rankOffset, worldSize, backend }: UpdateGroup): Promise<void> {
    const body = {
      group_name: name,
      master_address: masterAddress,
      master_port: masterPort,
      rank_offset: rankOffset,
      world_size: worldSize,
      backend,
    };
    await this.#control.post({ kind: "join-group", group: name }, "/init_weights_update_group", body, this.#limits.updateTimeoutMs);
  }

  /**
   * Receives tensors that rank 0 of the group broadcasts in this order, once this was accepted; the last part of a push names its version.
   * @throws `engine.state` for a group that was not joined, or while running; `weights.mismatch` when the server says no.
   */
  async updateFromGroup(
    group: string,
    tensors: readonly { readonly name: string; readonly dtype: string; readonly shape: readonly number[] }[],
    version: number | null,
  ): Promise<void> {
    const body = {
      group_name: group,
      names: tensors.map(({ name }) => name),
      dtypes: tensors.map(({ dtype }) => dtype),
      shapes: tensors.map(({ shape }) => shape),
      flush_cache: false,
      ...(version === null ? {} : { weight_version: String(version) }),
    };
    const call = { kind: "update-from-group", group, flush: false } as const;
    await this.#crossing(call, version ?? 0, () => this.#updater.loadFromGroup(body, version ?? 0));
  }

  async leaveUpdateGroup(group: string): Promise<void> {
    const call = { kind: "leave-group", group } as const;
    await this.#control.post(call, "/destroy_weights_update_group", { group_name: group }, this.#limits.updateTimeoutMs);
  }

  async close(): Promise<void> {
    await Promise.all([this.#http.close(), this.#control.close(), this.#updater.close()]);
  }

  /** A control call that changes the weights, on our record of what requests may have crossed. */
  async #crossing(call: ControlCall, version: number, work: () => Promise<ControlResult<void>>): Promise<void> {
    const pause = this.state.kind === "live" ? this.state.pause : null;
    await this.#control.run(call, async () => {
      this.#crossings.begin(pause, version);
      try {
        return await work();
      } finally {
        this.#crossings.end(pause);
      }
    });
  }

  /** Said once: what was computed under old weights is served on, unless a flush follows or nothing is kept. */
  #warnOfPrefixes(): void {
    const { state, capabilities } = this;
    if (this.#warned || capabilities.radixCacheOff || state.kind === "ended" || state.pause === "abort" || state.flushed) return;
    this.#warned = true;
    const flushes = capabilities.flushWhileRetracted ? "retract" : "abort";
    const fix = `pause by ${flushes} and flush, or start the server with --disable-radix-cache`;
    this.#options.log.warn("engine.old_prefixes", { url: this.url, pause: state.pause, fix });
  }

  /** Waiting for what a pause holds is in vain, even where it could be flushed at once. */
  #holds(): boolean {
    const { state } = this;
    return state.kind === "live" && (state.pause === "in_place" || state.pause === "retract");
  }

  #paced(request: GenerateRequest): GenerateRequest {
    const stream_interval = Math.max(1, Math.ceil(request.sampling_params.max_new_tokens / this.#limits.streamChunksMax));
    return { ...request, sampling_params: { stream_interval, ...request.sampling_params } };
  }
}
