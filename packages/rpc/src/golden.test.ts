import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { SlimeError } from "@slime/core";
import { describe, expect, test } from "vitest";
import {
  type CallHead,
  messageType,
  writeBare,
  writeCall,
  writeCancel,
  writeFailure,
  writeGoodbye,
  writeHello,
  writeResult,
  writeSend,
} from "./envelope.js";
import { frameParts, headerBytesOf, readPrefix } from "./frame.js";
import { storedLimits } from "./limits.js";
import { MsgpackWriter } from "./msgpack-writer.js";
import { NdArray } from "./nd-array.js";
import { toGolden } from "./testing/values.js";
import { decodeValueFrame, encodeValue } from "./value-frame.js";
import { ValueReader } from "./value-reader.js";
import { ValueWriter } from "./value-writer.js";

/** The wire's bytes, which this test and the Python host's test both read. Rewritten by `vitest -u`; a change there is a new protocol. */
const goldenPath = fileURLToPath(new URL("../../../test/golden/frames.json", import.meta.url));

const values: Readonly<Record<string, unknown>> = {
  nothing: null,
  undefined: undefined,
  truth: [true, false],
  "whole numbers at the edges of their forms": [
    0,
    1,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    4_294_967_295,
    4_294_967_296,
    Number.MAX_SAFE_INTEGER,
    -1,
    -32,
    -33,
    -128,
    -129,
    -32_768,
    -32_769,
    -2_147_483_648,
    -2_147_483_649,
    Number.MIN_SAFE_INTEGER,
  ],
  fractions: [0.5, -0, 1e300, Number.NaN, Number.POSITIVE_INFINITY, Number.NEGATIVE_INFINITY],
  bigints: [0n, -5n, 2n ** 63n, -(2n ** 63n), 10n ** 40n],
  text: ["", "plain", "ü é 漢 🙂", "thirty-one characters, no more!!", "thirty-two characters, one more!", "x".repeat(300)],
  "bytes in place": new Uint8Array([0, 1, 255]),
  "bytes as a segment": Uint8Array.from({ length: 1100 }, (_, i) => i % 251),
  maps: { a: 1, nested: { list: [1, [2, [3]]] }, "": "empty key" },
  "keys that look like tags": { __ref: 1, ____: 2, _: 3, __proto: { __nd: [1] } },
  "every dtype": [
    new Int8Array([-1, 2]),
    new Int16Array([-300, 2]),
    new Uint16Array([65_535]),
    new Int32Array([-70_000]),
    new Uint32Array([4_000_000_000]),
    new BigInt64Array([-(2n ** 62n)]),
    new BigUint64Array([2n ** 63n]),
    new Float32Array([1.5, -2.25]),
    new Float64Array([0.1, Number.NaN]),
  ],
  "arrays of other shapes": [
    new NdArray("f4", [2, 3], new Float32Array([1, 2, 3, 4, 5, 6])),
    new NdArray("f2", [2], new Uint16Array([15_360, 16_384])),
    new NdArray("b1", [3], new Uint8Array([1, 0, 1])),
    new NdArray("i4", [0, 4], new Int32Array(0)),
  ],
  "empty containers": [[], {}, new Float32Array(0), ""],
};

const noHead: CallHead = { deadlineMs: null, traceId: null, idempotencyKey: null, urgent: false };
const failure = {
  code: "object.lost",
  message: "gone",
  details: { objectId: "obj_0000000000000001", reason: "freed" },
  stack: "at x",
  origin: "actor_0000000000000001#2/pid 9",
  cause: null,
};

const messages: Readonly<Record<string, { readonly epoch: number; readonly write: (out: ValueWriter) => void }>> = {
  hello: {
    epoch: 0,
    write: (out) =>
      writeHello(out, {
        clusterId: "cluster_00000000000000aa",
        who: { kind: "driver", id: "proc_00000000000000bb", incarnation: 0, pid: 4711 },
      }),
  },
  "call, shortest": { epoch: 3, write: (out) => writeCall(out, 1, "add", [1, 2], noHead) },
  "call, with a deadline": { epoch: 3, write: (out) => writeCall(out, 2, "add", [1], { ...noHead, deadlineMs: 60_000 }) },
  "call, everything": {
    epoch: 70_000,
    write: (out) =>
      writeCall(out, 300, "train", [new Float32Array([1, 2, 3])], {
        deadlineMs: 1500,
        traceId: "trace_00000000000000cc",
        idempotencyKey: "k-1",
        urgent: true,
      }),
  },
  result: { epoch: 3, write: (out) => writeResult(out, 1, { sum: 3 }) },
  "result without a value": { epoch: 3, write: (out) => writeResult(out, 1, undefined) },
  failure: {
    epoch: 3,
    write: (out) => writeFailure(out, 2, { ...failure, cause: { ...failure, code: "a.code.of.tomorrow", details: null } }),
  },
  cancel: { epoch: 3, write: (out) => writeCancel(out, 2) },
  send: { epoch: 3, write: (out) => writeSend(out, "log", ["x"], "trace_00000000000000cc", false) },
  ping: { epoch: 3, write: (out) => writeBare(out, messageType.ping) },
  pong: { epoch: 3, write: (out) => writeBare(out, messageType.pong) },
  goodbye: { epoch: 3, write: (out) => writeGoodbye(out, "closed", null) },
};

/** Frames that must be refused: what they hold is beside the point. */
const refused: Readonly<Record<string, { readonly hex: string; readonly code: "codec.refused" | "wire.limit" | "peer.incompatible" }>> = {
  "another protocol version": { hex: "0d000000050000009402009091c0", code: "peer.incompatible" },
  "an extension type": { hex: frameOf("d40100"), code: "codec.refused" },
  "a string that ends early": { hex: frameOf("a568"), code: "codec.refused" },
  "an array longer than its frame": { hex: frameOf("dd7fffffff"), code: "codec.refused" },
  "a map longer than its frame": { hex: frameOf("df7fffffff"), code: "codec.refused" },
  "a string longer than allowed": { hex: frameOf("dbffffffff"), code: "wire.limit" },
  "invalid UTF-8": { hex: frameOf("a2c328"), code: "codec.refused" },
  "a key that is a number": { hex: frameOf("810101"), code: "codec.refused" },
  "a segment that is not there": { hex: frameOf("81a75f5f627974657305"), code: "codec.refused" },
  "a reserved key beside others": { hex: frameOf("82a16101a35f5f7801"), code: "codec.refused" },
  "too deep": { hex: frameOf(`${"91".repeat(200)}c0`), code: "wire.limit" },
  "bytes after the value": { hex: frameOf("c0c0"), code: "codec.refused" },
  "the reserved type c1": { hex: frameOf("c1"), code: "codec.refused" },
  "a header longer than its frame": { hex: "0d000000ff0000009401009091", code: "codec.refused" },
};

function frameOf(valueHex: string): string {
  const header = Buffer.from(`9401009091${valueHex}`, "hex");
  const out = Buffer.alloc(8 + header.length);
  out.writeUInt32LE(out.length, 0);
  out.writeUInt32LE(header.length, 4);
  header.copy(out, 8);
  return out.toString("hex");
}

function messageFrame(epoch: number, write: (out: ValueWriter) => void): Buffer {
  const writer = new ValueWriter(new MsgpackWriter(64), undefined);
  write(writer);
  return Buffer.concat(frameParts(writer.out.buffer.subarray(0, writer.out.position), writer.segments, epoch, 1));
}

interface Golden {
  readonly values: readonly { readonly name: string; readonly hex: string; readonly value: unknown }[];
  readonly messages: readonly { readonly name: string; readonly epoch: number; readonly hex: string; readonly message: unknown }[];
  readonly refused: readonly { readonly name: string; readonly hex: string; readonly code: string }[];
}

/** A message as the plain array it is on the wire. */
function messageOf(frame: Buffer): unknown {
  const headerBytes = headerBytesOf(frame, 0, frame.length);
  let table: readonly number[] = [];
  const reader = new ValueReader(
    frame,
    8,
    8 + headerBytes,
    (i) => new Uint8Array(frame.subarray(table[i * 2] ?? 0, (table[i * 2] ?? 0) + (table[i * 2 + 1] ?? 0))),
    undefined,
  );
  table = readPrefix(reader, headerBytes, frame.length, storedLimits).segments;
  return reader.value();
}

describe("golden frames", () => {
  test("the file holds what is written today", async () => {
    const golden: Golden = {
      values: Object.entries(values).map(([name, value]) => ({
        name,
        hex: Buffer.from(encodeValue(value)).toString("hex"),
        value: toGolden(value),
      })),
      messages: Object.entries(messages).map(([name, { epoch, write }]) => {
        const frame = messageFrame(epoch, write);
        return { name, epoch, hex: frame.toString("hex"), message: toGolden(messageOf(frame)) };
      }),
      refused: Object.entries(refused).map(([name, { hex, code }]) => ({ name, hex, code })),
    };
    await expect(`${JSON.stringify(golden, null, 1)}\n`).toMatchFileSnapshot(goldenPath);
  });

  const file = JSON.parse(readFileSync(goldenPath, "utf8")) as Golden;
  test.each(file.values)("value: $name", ({ name, hex, value }) => {
    const read = decodeValueFrame(Buffer.from(hex, "hex"));
    expect(toGolden(read)).toEqual(value);
    expect(read).toEqual(values[name]);
  });
  test.each(file.messages)("message: $name", ({ hex, message }) => {
    expect(toGolden(messageOf(Buffer.from(hex, "hex")))).toEqual(message);
  });
  test.each(file.refused)("refused: $name", ({ hex, code }) => {
    let error: unknown;
    try {
      decodeValueFrame(Buffer.from(hex, "hex"));
    } catch (thrown) {
      error = thrown;
    }
    expect(SlimeError.isAny(error) && error.code).toBe(code);
  });
});
