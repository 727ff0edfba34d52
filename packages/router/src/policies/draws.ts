import type { Random } from "@slime/core";

const drawn = 1_024;

/** Uniform whole numbers below a bound, drawn from the source a thousand at a time: asking the operating system for each costs more than all else of a choice. The bias is below bound / 2^32. */
export function draws(random: Random): (below: number) => number {
  let words = new DataView(new ArrayBuffer(0));
  let at = 0;
  return (below) => {
    if (at >= words.byteLength) {
      words = new DataView(new Uint8Array(random.bytes(4 * drawn)).buffer);
      at = 0;
    }
    const word = words.getUint32(at);
    at += 4;
    return Math.floor((word / 0x1_0000_0000) * below);
  };
}
