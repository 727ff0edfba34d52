import type { ServerRequest } from "@slime/sglang";

/** What every SGLang engine of a run is told, started by us or not. */
export interface SglangCommon {
  /** Python of the server and of the helper that hands weights over. */
  readonly python: string;
  readonly env: Readonly<Record<string, string>>;
  /** How a push that lies in the machine's memory gets in; one that lies on disk is read from there. */
  readonly transport: "tensor" | "disk";
  /** The model directory has no weights: they come from this seed, as the trainer's do; null: it has. */
  readonly fromSeed: number | null;
  /** Of this engine alone: logs of its server and helper, and initial weights where the model has none. */
  readonly directory: string;
}

/** What decides a server, except where it runs. */
export type ServerSettings = Omit<ServerRequest, "node" | "ports">;

/** An SGLang server that its actor starts. */
export interface SglangEngineSpec extends SglangCommon {
  readonly kind: "sglang";
  readonly settings: ServerSettings;
}

/** An SGLang server that runs already and that nobody of ours may end. */
export interface ExternalEngineSpec extends SglangCommon {
  readonly kind: "external";
  readonly url: string;
  /** What the trainer trains: the server must serve the same. */
  readonly modelPath: string;
}
