import { SlimeError } from "@slime/core";
import type { CodecHooks } from "./codec-hooks.js";
import { bigDigitsMax } from "./limits.js";
import { dtypeOf, NdArray } from "./nd-array.js";

/**
 * Finds, in a value that the writer gave up on, the first place that cannot be sent, and says what to do about it.
 * Slow on purpose: it runs only after a refusal, so that the writer need not keep a path.
 */
export function explainRefusal(root: unknown, hooks: CodecHooks | undefined, depthMax: number): SlimeError<"codec.refused"> {
  const found = search(root, "value", [], hooks, depthMax) ?? { where: "value", reason: "it changed while it was being encoded" };
  return new SlimeError("codec.refused", `${found.where} cannot be sent: ${found.reason}`, found);
}

interface Refused {
  readonly where: string;
  readonly reason: string;
}

function search(
  value: unknown,
  where: string,
  ancestors: readonly object[],
  hooks: CodecHooks | undefined,
  depthMax: number,
): Refused | undefined {
  if (typeof value === "symbol") return { where, reason: "it is a symbol; send a string" };
  if (typeof value === "bigint" && value.toString().length > bigDigitsMax)
    return { where, reason: "it is a bigint of more than 4,000 digits; send its bytes" };
  if ((typeof value !== "object" && typeof value !== "function") || value === null) return undefined;
  const circle = ancestors.indexOf(value);
  if (circle >= 0) return { where, reason: "it is part of a cycle; send a tree" };
  if (ancestors.length >= depthMax)
    return { where: where.slice(0, 200), reason: `it lies deeper than ${depthMax} levels; send a flatter value` };
  const within = [...ancestors, value];
  if (Array.isArray(value)) {
    for (const [i, item] of value.entries()) {
      const found = search(item, `${where}[${i}]`, within, hooks, depthMax);
      if (found !== undefined) return found;
    }
    return undefined;
  }
  const prototype = Object.getPrototypeOf(value) as object | null;
  if (prototype === Object.prototype || prototype === null) {
    for (const [key, item] of Object.entries(value)) {
      const found = search(
        item,
        /^[A-Za-z_$][\w$]*$/.test(key) ? `${where}.${key}` : `${where}[${JSON.stringify(key)}]`,
        within,
        hooks,
        depthMax,
      );
      if (found !== undefined) return found;
    }
    return undefined;
  }
  if (prototype === Uint8Array.prototype || prototype === Buffer.prototype || dtypeOf(prototype) !== undefined || value instanceof NdArray)
    return undefined;
  const special = hooks?.encodeSpecial(value);
  if (special !== undefined) return search(special.payload, `${where}(${special.tag})`, within, hooks, depthMax);
  return { where, reason: advice(value) };
}

function advice(value: object): string {
  if (typeof value === "function") return `it is a function (${value.name || "anonymous"}); functions stay in their process`;
  if (value instanceof Date) return "it is a Date; send its toISOString() or getTime()";
  if (value instanceof Map) return "it is a Map; send Object.fromEntries(map) or an array of its entries";
  if (value instanceof Set) return "it is a Set; send an array of its members";
  if (value instanceof Promise) return "it is a Promise; await it first";
  if (value instanceof Error) return "it is an Error; throw it, or send its message";
  if (value instanceof ArrayBuffer) return "it is an ArrayBuffer; send a Uint8Array over it";
  if (ArrayBuffer.isView(value)) return `it is a ${value.constructor.name}; send a Uint8Array or a typed array of numbers`;
  const name = (value.constructor as { readonly name?: string } | undefined)?.name;
  return `it is an instance of ${name || "an unnamed class"}; send a plain object with its data`;
}
