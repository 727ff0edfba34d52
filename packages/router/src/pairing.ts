import { type Random, SlimeError } from "@slime/core";
import { batchSize, findValue, isEmptyObject, objectStart } from "./json-scan.js";

/** Fields whose value may be a batch. A chat's `messages` are one prompt. */
const batchKeys = ["input_ids", "text", "prompt"] as const;

/** What of a body both engines of a pair must be told. */
export interface Pairable {
  readonly body: Buffer;
  /** Where its object opens. */
  readonly start: number;
  /** Prompts of a batch; null for one prompt. */
  readonly batch: number | null;
}

/** @throws `codec.refused` unless the body is a JSON object, which alone can be told who the partner is, of at most `batchMax` prompts. */
export function pairable(body: Buffer | null, batchMax: number): Pairable {
  const refused = (message: string, reason: string) => new SlimeError("codec.refused", message, { where: "request body", reason });
  const start = body === null ? -1 : objectStart(body);
  if (body === null || start < 0)
    throw refused("prefill and decode engines answer together only what is asked by a JSON object", "not a JSON object");
  const prompt = findValue(body, batchKeys, body.length);
  const batch = prompt === null ? null : batchSize(body, prompt.start);
  if (batch !== null && batch > batchMax)
    throw refused(
      `a batch for prefill and decode engines has at most pairBatchMax (${batchMax}) prompts, not ${batch}; send several`,
      "batch",
    );
  return { body, start, batch };
}

/**
 * The body for both engines of a pair: the prefill engine's address and a number by which the two find each other, put in front of the
 * object's own fields; every other byte stays. A batch gets one number per prompt, as SGLang wants it. What the client itself says of
 * `bootstrap_*` comes later in the object and so holds.
 */
export function withBootstrap({ body, start, batch }: Pairable, prefillUrl: string, bootstrapPort: number, random: Random): Buffer {
  const host = JSON.stringify(new URL(prefillUrl).hostname.replace(/^\[(.*)\]$/, "$1"));
  const list = (make: () => string) => (batch === null ? make() : `[${Array.from({ length: batch }, make).join(",")}]`);
  const fields = [
    `"bootstrap_host":${list(() => host)}`,
    `"bootstrap_port":${list(() => String(bootstrapPort))}`,
    `"bootstrap_room":${list(() => String(room(random)))}`,
  ].join(",");
  const comma = isEmptyObject(body, start) ? "" : ",";
  return Buffer.concat([body.subarray(0, start + 1), Buffer.from(fields + comma), body.subarray(start + 1)]);
}

/** Uniform in [0, 2^62): a signed 64-bit number, and SGLang may add small numbers to it. */
function room(random: Random): bigint {
  return new DataView(new Uint8Array(random.bytes(8)).buffer).getBigUint64(0) >> 2n;
}
