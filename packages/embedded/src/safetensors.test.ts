import { SlimeError } from "@slime/core";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { decodeSafetensors, encodeSafetensors, type NamedTensor } from "./safetensors.js";

const tensor = fc.array(fc.integer({ min: 0, max: 4 }), { maxLength: 3 }).chain((shape) => {
  const count = shape.reduce((a, b) => a * b, 1);
  return fc.record({
    shape: fc.constant(shape),
    data: fc.array(fc.float({ noNaN: true }), { minLength: count, maxLength: count }).map((values) => Float32Array.from(values)),
  });
});

/** A file written by hand: header text and raw data. */
function file(header: string, data: Uint8Array = new Uint8Array()): Uint8Array {
  const text = Buffer.from(header);
  const out = new Uint8Array(8 + text.length + data.length);
  new DataView(out.buffer).setBigUint64(0, BigInt(text.length), true);
  out.set(text, 8);
  out.set(data, 8 + text.length);
  return out;
}

describe("safetensors", () => {
  it("reads back what it wrote, at any alignment", () => {
    fc.assert(
      fc.property(fc.array(tensor, { maxLength: 4 }), fc.nat(7), (raw, shift) => {
        const tensors: NamedTensor[] = raw.map((t, i) => ({ name: `t${i}`, ...t }));
        const bytes = encodeSafetensors(tensors, { format: "pt" });
        const moved = new Uint8Array(bytes.length + shift);
        moved.set(bytes, shift);
        expect([...decodeSafetensors(Buffer.from(moved.buffer, shift), "f").values()]).toEqual(tensors);
      }),
      { seed: 4 },
    );
  });

  it("widens F16 and BF16", () => {
    const header = '{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F16","shape":[4],"data_offsets":[4,12]}}';
    const data = new Uint8Array(Uint16Array.of(0x3f80, 0xc040, 0x3c00, 0xb800, 0x0001, 0x7c00).buffer);
    const tensors = decodeSafetensors(file(header, data), "f");
    expect([...(tensors.get("a")?.data ?? [])]).toEqual([1, -3]);
    expect([...(tensors.get("b")?.data ?? [])]).toEqual([1, -0.5, 2 ** -24, Infinity]);
  });

  it.each<[string, Uint8Array, RegExp]>([
    ["too short", new Uint8Array(3), /3 bytes are too few/],
    ["a header longer than the file", file("{}").fill(255, 0, 4), /cut off or not safetensors/],
    ["no JSON", file("{nope"), /not JSON/],
    ["an unknown type", file('{"a":{"dtype":"I64","shape":[1],"data_offsets":[0,8]}}', new Uint8Array(8)), /I64/],
    ["data cut off", file('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}', new Uint8Array(4)), /does not fit/],
    [
      "offsets that contradict the shape",
      file('{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,4]}}', new Uint8Array(8)),
      /does not fit/,
    ],
    ["a negative shape", file('{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}', new Uint8Array(8)), /no valid shape/],
  ])("refuses %s", (_, bytes, message) => {
    const attempt = () => decodeSafetensors(bytes, "model.safetensors");
    expect(attempt).toThrow(message);
    expect(attempt).toThrow(SlimeError);
  });
});
