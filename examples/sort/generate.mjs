// Writes train.jsonl and heldout.jsonl: every string of four digits with "=" as the prompt, its digits in order as the label.
// `node examples/sort/generate.mjs` gives the committed files again, byte for byte.
import { writeFileSync } from "node:fs";

const heldOut = 512;
const seed = 20250101;

/** mulberry32: 32 bits of state are enough to shuffle ten thousand lines, and any reader can check it. */
function random(state) {
  return () => {
    state = (state + 0x6d2b79f5) | 0;
    let t = Math.imul(state ^ (state >>> 15), 1 | state);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}

const digits = Array.from({ length: 10_000 }, (_, i) => String(i).padStart(4, "0"));
const next = random(seed);
for (let i = digits.length - 1; i > 0; i--) {
  const j = Math.floor(next() * (i + 1));
  [digits[i], digits[j]] = [digits[j], digits[i]];
}
const lines = digits.map((text) => `${JSON.stringify({ prompt: `${text}=`, label: [...text].sort().join("") })}\n`);
const here = (name) => new URL(name, import.meta.url);
writeFileSync(here("heldout.jsonl"), lines.slice(0, heldOut).join(""));
writeFileSync(here("train.jsonl"), lines.slice(heldOut).join(""));
