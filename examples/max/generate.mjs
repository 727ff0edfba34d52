// Writes train.jsonl: 2,000 of the strings of four digits with "=" as the prompt, the largest digit as the label.
// `node examples/max/generate.mjs` gives the committed file again, byte for byte.
import { writeFileSync } from "node:fs";

const prompts = 2_000;
/** Coprime to 10,000, so that each string comes once. */
const stride = 3_701;

const lines = Array.from({ length: prompts }, (_, i) => {
  const text = String((i * stride) % 10_000).padStart(4, "0");
  return `${JSON.stringify({ prompt: `${text}=`, label: [...text].sort().at(-1) })}\n`;
});
writeFileSync(new URL("train.jsonl", import.meta.url), lines.join(""));
