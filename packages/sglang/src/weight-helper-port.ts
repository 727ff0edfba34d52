import type { WeightBucket } from "./weight-source.js";

/** One push through the helper: what to read, and whom to post it to. */
export interface HelperPush {
  readonly url: string;
  /** The export in shared memory. */
  readonly path: string;
  readonly buckets: readonly WeightBucket[];
  /** Tensor-parallel ranks of the server; each gets a handle of its own on the same bytes. */
  readonly ranks: number;
  /** Where the server computes: "cpu" shares host memory, "cuda" device memory. */
  readonly device: string;
  /** Said with the last bucket, so that no part of a push bears its version. */
  readonly weightVersion: string;
  /** For each bucket: reading it, posting it, and the server's loading it. */
  readonly bucketTimeoutMs: number;
}

/**
 * How a push ended. `refused`: the server said no to bucket number `posted`; `failed`: the helper could not make it, the server was not asked;
 * `lost`: server or helper is gone or silent, so nobody knows what was loaded.
 */
export type HelperEnd =
  | { readonly kind: "done" }
  | { readonly kind: "refused"; readonly status: number; readonly reason: string; readonly posted: number }
  | { readonly kind: "failed"; readonly reason: string; readonly posted: number }
  | { readonly kind: "lost"; readonly reason: string; readonly posted: number };

/** Who makes a server's serialized tensors and posts them: a process with torch, since handles on memory are torch's own. */
export interface WeightHelper extends AsyncDisposable {
  /** One at a time; settles in all cases, at the latest when a bucket takes longer than `bucketTimeoutMs`. */
  readonly push: (request: HelperPush) => Promise<HelperEnd>;
  readonly close: () => Promise<void>;
}
