import { type Random, SlimeError } from "@slime/core";
import { batchSize, findValue, isEmptyObject, objectStart } from "./json-scan.js";

/** Fields whose value may be a batch. A chat's `messages` are one prompt. */
const batchKeys = ["input_ids", "text", "prompt"] as const;

/** @throws `codec.refused` unless the body is a JSON object: only that can be told who the partner is. */
export function checkPairable(body: Buffer | null): void {
  if (body !== null && objectStart(body) >= 0) return;
  throw new SlimeError("codec.refused", "prefill and decode engines answer together only what is asked by a JSON object", {
    where: "request body",
    reason: "not a JSON object",
  });
}

/**
 * The body for both engines of a pair: the prefill engine's address and a number by which the two find each other, put in front of the
 * object's own fields; every other byte stays. A batch gets one number per prompt, as SGLang wants it. What the client itself says of
 * `bootstrap_*` comes later in the object and so holds.
 * @param body one that `checkPairable` let pass.
 */
export function withBootstrap(body: Buffer, prefillUrl: string, bootstrapPort: number, random: Random): Buffer {
  const start = objectStart(body);
  const host = JSON.stringify(new URL(prefillUrl).hostname.replace(/^\[(.*)\]$/, "$1"));
  const prompt = findValue(body, batchKeys, body.length);
  const size = prompt === null ? null : batchSize(body, prompt.start);
  const list = (make: () => string) => (size === null ? make() : `[${Array.from({ length: size }, make).join(",")}]`);
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
