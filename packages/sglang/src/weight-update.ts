/** How weights get into a stock server: by disk, or by tensor through the helper; checked first, since a wrong shape kills it. */
import { rm } from "node:fs/promises";
import { join } from "node:path";
import type { WeightUpdate } from "@slime/backend";
import { causeChain, SlimeError } from "@slime/core";
import { replyJson } from "@slime/router";
import type { ServerCapabilities } from "./capabilities.js";
import { checkpointShapes, hasTiedHead, shapeProblem, type TensorShapes } from "./checkpoint-shapes.js";
import { ControlFailure, type ControlResult, type EngineControl } from "./engine-control.js";
import type { WeightHelper } from "./weight-helper-port.js";
import { bucketsOf, exportProblem, exportShapes, type SharedWeights, writeModelDirectory } from "./weight-source.js";

export interface UpdateParts {
  readonly control: EngineControl;
  readonly capabilities: ServerCapabilities;
  /** The directory that the server was started with: what shapes are held against. */
  readonly modelPath: string;
  /** How an export in shared memory gets in. A directory always goes by disk. */
  readonly transport: "tensor" | "disk";
  readonly helper: WeightHelper | null;
  /** For exports that go by disk: a directory of this engine's own. */
  readonly scratch: string | null;
  readonly updateTimeoutMs: number;
  readonly bucketBytesMax: number;
}

interface ModelShapes {
  readonly shapes: TensorShapes;
  readonly tiedHead: boolean;
}

/** Loads weights into one server and checks all it can before and after. */
export class WeightUpdater {
  readonly #parts: UpdateParts;
  #model: Promise<ModelShapes> | null = null;
  /** Written for the update before; the server may map it still. */
  #written: string | null = null;

  constructor(parts: UpdateParts) {
    this.#parts = parts;
  }

  /** HTTP calls that this update carries weights in. */
  partsOf({ source }: WeightUpdate): number {
    const { transport, bucketBytesMax } = this.#parts;
    return source.kind === "directory" || transport === "disk" ? 1 : bucketsOf(source.tensors, bucketBytesMax).length;
  }

  /**
   * Checks and loads. It runs within the control call `update`.
   * @throws `ControlFailure`; within: `weights.mismatch` for weights that are missing, not as announced or of another model, or that the server
   * did not take; `unsupported`; `engine.unavailable`.
   */
  async load({ version, source }: WeightUpdate): Promise<ControlResult<void>> {
    const { capabilities, control, transport } = this.#parts;
    if (capabilities.replicas)
      throw unsupported(
        "weight updates of data-parallel replicas",
        `${control.url} has dp_size ${capabilities.dpSize}; SGLang updates replicas only with --enable-dp-attention, or start one engine for each`,
      );
    await this.#refuseOthers(version, source);
    if (source.kind === "directory") await this.#byDisk(version, source.path);
    else if (transport === "disk") await this.#byScratch(version, source);
    else await this.#byTensor(version, source);
    await this.#confirm(version);
    return { end: "done", value: undefined };
  }

  async close(): Promise<void> {
    if (this.#written !== null) await rm(this.#written, { recursive: true, force: true });
  }

  /** Nothing is sent of what a server would die of, or take without a word. */
  async #refuseOthers(version: number, source: WeightUpdate["source"]): Promise<void> {
    const reason = await this.#problemOf(source).catch((error: unknown) => {
      throw this.#mismatch(version, causeChain(error).join(": "), error);
    });
    if (reason !== null) throw this.#mismatch(version, reason);
  }

  async #problemOf(source: WeightUpdate["source"]): Promise<string | null> {
    const wrong = source.kind === "shared-memory" ? await exportProblem(source) : null;
    if (wrong !== null) return wrong;
    const { shapes, tiedHead } = await this.#modelShapes();
    const given = source.kind === "directory" ? await checkpointShapes(source.path) : exportShapes(source.tensors);
    const other = shapeProblem(shapes, given, tiedHead);
    return other === null ? null : `these are not the weights of ${this.#parts.modelPath}: ${other}`;
  }

  #modelShapes(): Promise<ModelShapes> {
    this.#model ??= Promise.all([checkpointShapes(this.#parts.modelPath), hasTiedHead(this.#parts.modelPath)]).then(
      ([shapes, tiedHead]) => ({
        shapes,
        tiedHead,
      }),
    );
    // A directory that cannot be read now may be there for the next update.
    this.#model.catch(() => {
      this.#model = null;
    });
    return this.#model;
  }

  async #byDisk(version: number, model_path: string): Promise<void> {
    const { control, updateTimeoutMs } = this.#parts;
    const body = { model_path, weight_version: String(version), flush_cache: false, abort_all_requests: false };
    await control.send("/update_weights_from_disk", body, updateTimeoutMs).catch((error: unknown) => {
      throw this.#refusal(version, error, "unchanged");
    });
  }

  async #byScratch(version: number, source: SharedWeights): Promise<void> {
    const { scratch, modelPath } = this.#parts;
    if (scratch === null)
      throw unsupported("a push of shared memory by disk", "the adapter was given no scratch directory: give it one, or transport tensor");
    const directory = join(scratch, `weights-${version}`);
    await writeModelDirectory(directory, modelPath, source);
    try {
      await this.#byDisk(version, directory);
    } catch (error) {
      await rm(directory, { recursive: true, force: true });
      throw error;
    }
    if (this.#written !== null && this.#written !== directory) await rm(this.#written, { recursive: true, force: true });
    this.#written = directory;
  }

  async #byTensor(version: number, source: SharedWeights): Promise<void> {
    await this.#inSession(version, () => this.#post(version, source));
  }

  /** Loads what rank 0 of a group broadcasts. It runs within the control call `update-from-group`. A refusal may come with half of it loaded. */
  async loadFromGroup(body: Readonly<Record<string, unknown>>, version: number): Promise<ControlResult<void>> {
    const { control, updateTimeoutMs } = this.#parts;
    await this.#inSession(version, async () => {
      await control.send("/update_weights_from_distributed", body, updateTimeoutMs).catch((error: unknown) => {
        throw this.#refusal(version, error, "torn");
      });
    });
    return { end: "done", value: undefined };
  }

  /** Newer servers take tensors only between a begin and an end. */
  async #inSession(version: number, work: () => Promise<void>): Promise<void> {
    const { capabilities, control, updateTimeoutMs } = this.#parts;
    if (!capabilities.sessions) return work();
    await this.#session("/begin_weight_update", { selector: "all" }, version, "unchanged");
    try {
      await work();
    } catch (error) {
      // A session left open would refuse the next push; whoever did not answer will not answer this either.
      if (!(error instanceof ControlFailure && error.end === "lost"))
        await control.send("/end_weight_update", {}, updateTimeoutMs).catch((late: unknown) => {
          if (late instanceof ControlFailure && late.end === "lost") throw late;
        });
      throw error;
    }
    await this.#session("/end_weight_update", {}, version, "torn");
  }

  async #session(path: string, body: unknown, version: number, refused: "unchanged" | "torn"): Promise<void> {
    await this.#parts.control.send(path, body, this.#parts.updateTimeoutMs).catch((error: unknown) => {
      throw this.#refusal(version, error, refused);
    });
  }

  async #post(version: number, source: SharedWeights): Promise<void> {
    const { helper, control, capabilities, bucketBytesMax, updateTimeoutMs } = this.#parts;
    if (helper === null)
      throw unsupported(
        "a push of shared memory by tensor",
        "the adapter was given no weight helper: give it one of startWeightHelper, or transport disk",
      );
    const ended = await helper.push({
      url: control.url,
      path: source.path,
      buckets: bucketsOf(source.tensors, bucketBytesMax),
      ranks: capabilities.tpSize,
      device: capabilities.device,
      weightVersion: String(version),
      bucketTimeoutMs: updateTimeoutMs,
    });
    switch (ended.kind) {
      case "done":
        return;
      case "lost":
        throw new ControlFailure(
          "lost",
          new SlimeError("engine.unavailable", `the push of version ${version} to ${control.url} has no end: ${ended.reason}`, {
            engine: control.url,
            reason: ended.reason,
          }),
        );
      case "failed":
        throw new ControlFailure(ended.posted === 0 ? "unchanged" : "torn", this.#mismatch(version, ended.reason));
      case "refused":
        throw new ControlFailure("torn", this.#mismatch(version, `it answered ${ended.status}: ${ended.reason}`));
    }
  }

  /** The server's own word on what it holds now. */
  async #confirm(version: number): Promise<void> {
    const { control } = this.#parts;
    const reply = await control.get("/model_info", this.#parts.updateTimeoutMs).catch((error: unknown) => {
      throw new ControlFailure("lost", error);
    });
    const says = String(replyJson(control.url, reply)["weight_version"]);
    if (says !== String(version)) throw new ControlFailure("torn", this.#mismatch(version, `it says it holds version ${says}`));
  }

  #refusal(version: number, error: unknown, end: "unchanged" | "torn"): unknown {
    if (!(error instanceof ControlFailure) || error.end === "lost") return error;
    const reason = SlimeError.is(error.error, "engine.refused") ? error.error.details.reason : String(error.error);
    return new ControlFailure(end, this.#mismatch(version, reason, error.error));
  }

  #mismatch(version: number, reason: string, cause?: unknown): SlimeError {
    const { url } = this.#parts.control;
    return new SlimeError(
      "weights.mismatch",
      `${url}, version ${version}: ${reason}`,
      { engine: url, version, reason },
      cause === undefined ? {} : { cause },
    );
  }
}

function unsupported(what: string, why: string): SlimeError {
  return new SlimeError("unsupported", `${what}: ${why}`, { what, why });
}
