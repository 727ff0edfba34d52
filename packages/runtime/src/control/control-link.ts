import type { ClientDownBatch, ClientUpBatch } from "@slime/rpc/control";

/** One stream to the head while it lasts. */
export interface ControlLink {
  readonly write: (batch: ClientUpBatch) => void;
  readonly end: () => void;
}

export interface ControlLinkEvents {
  readonly onBatch: (batch: ClientDownBatch) => void;
  /** Once; nothing follows. */
  readonly onEnd: (reason: string) => void;
}

/** Opens a stream; the client opens a new one when it ends. gRPC stands behind it, or memory in tests. */
export interface ControlDialer {
  readonly address: string;
  readonly open: (events: ControlLinkEvents) => ControlLink;
  readonly close: () => void;
}
