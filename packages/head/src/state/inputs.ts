import type { ClientHello, ClientUp, JobSpec, NodeHello, NodeUp } from "@slime/rpc/control";

/** What happens to the head. Everything it decides follows from its state, one of these, and the time given with it. */
export type HeadInput =
  | { readonly kind: "node.hello"; readonly link: string; readonly hello: NodeHello; readonly epoch: number }
  | { readonly kind: "node.message"; readonly link: string; readonly nodeId: string; readonly message: NonNullable<NodeUp["message"]> }
  | { readonly kind: "node.closed"; readonly link: string; readonly nodeId: string }
  | {
      readonly kind: "client.hello";
      readonly session: string;
      readonly id: number;
      readonly hello: ClientHello /** For a job of its own, if it needs one. */;
      readonly newJobId: string;
    }
  | { readonly kind: "client.request"; readonly session: string; readonly id: number; readonly request: NonNullable<ClientUp["request"]> }
  | { readonly kind: "client.closed"; readonly session: string }
  | { readonly kind: "job.submit"; readonly token: number; readonly job: SubmittedJob }
  | {
      readonly kind: "job.stop";
      readonly token: number;
      readonly jobId: string;
      readonly graceMs: number;
      readonly waitMs: number;
      readonly reason: string;
    }
  | { readonly kind: "job.delete"; readonly token: number; readonly jobId: string }
  | { readonly kind: "node.stop"; readonly token: number; readonly nodeId: string; readonly graceMs: number }
  | { readonly kind: "cluster.stop"; readonly token: number; readonly graceMs: number; readonly waitMs: number }
  | { readonly kind: "tick" };

export interface SubmittedJob {
  readonly spec: JobSpec;
  readonly requestHash: string;
  readonly runtimeEnv: Readonly<Record<string, unknown>>;
}

/** The time an input happened at. */
export interface Times {
  /** The head's own time: monotonic, and it goes on where it stopped when the head restarts. Decides. */
  readonly nowMs: number;
  /** Milliseconds since 1970, for people. */
  readonly wallMs: number;
}
