import { SlimeError, systemClock } from "@slime/core";
import { HttpClient, refusalText } from "@slime/router";
import type { HelperEnd, HelperPush, WeightHelper } from "../weight-helper-port.js";
import { tensorBytes } from "../weight-source.js";
import { type DoublePayload, fileRange, sumOf } from "./double-weights.js";

/** A weight helper without Python, for `SglangDouble`: its payloads are sums of the tensors' bytes, as JSON. */
export function doubleHelper(): WeightHelper {
  const close = async () => {};
  return { push: pushSums, close, [Symbol.asyncDispose]: close };
}

async function pushSums(request: HelperPush): Promise<HelperEnd> {
  const http = new HttpClient(request.url, systemClock);
  let posted = 0;
  try {
    for (const bucket of request.buckets) {
      const bytes = await fileRange(request.path, bucket.from, bucket.to);
      const tensors: DoublePayload["tensors"] = bucket.tensors.map((tensor) => {
        const from = tensor.offset - bucket.from;
        return { name: tensor.name, shape: tensor.shape, sum: sumOf(bytes.subarray(from, from + tensorBytes(tensor))) };
      });
      const json = {
        serialized_named_tensors: Array<string>(request.ranks).fill(Buffer.from(JSON.stringify({ tensors })).toString("base64")),
        load_format: "flattened_bucket",
        flush_cache: false,
        ...(bucket === request.buckets.at(-1) ? { weight_version: request.weightVersion } : {}),
      };
      const reply = await http.call({ method: "POST", path: "/update_weights_from_tensor", json, timeoutMs: request.bucketTimeoutMs });
      if (reply.status !== 200) return { kind: "refused", status: reply.status, reason: refusalText(reply.body), posted };
      posted++;
    }
    return { kind: "done" };
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    return SlimeError.isAny(error) ? { kind: "lost", reason, posted } : { kind: "failed", reason, posted };
  } finally {
    await http.close();
  }
}
