import type { Sample } from "@slime/backend";

/** A rule that scores one sample. Pure and linear in the response's length: model output is hostile input. */
export type Grader = (sample: Sample) => number;

/**
 * Built-in rules by `--rm-type` (or `metadata.rm_type`). The prefix `boxed_` first replaces the response by the content of its
 * last `\boxed{}`, as upstream slime does.
 */
const graders: Readonly<Record<string, Grader>> = {
  exact_match: (sample) => (sample.label !== null && sample.response.trim() === sample.label.trim() ? 1 : 0),
};

export const graderNames: readonly string[] = Object.keys(graders).flatMap((name) => [name, `boxed_${name}`]);

/** The grader of this name, or null when there is none. */
export function graderOf(name: string): Grader | null {
  const boxed = name.startsWith("boxed_");
  const grader = graders[boxed ? name.slice("boxed_".length) : name];
  if (grader === undefined) return null;
  return boxed ? (sample) => grader({ ...sample, response: lastBoxed(sample.response) ?? "" }) : grader;
}

/** Content of the last `\boxed{…}` or `\fbox{…}` with balanced braces; null when there is none or it never closes. */
export function lastBoxed(text: string): string | null {
  const start = Math.max(text.lastIndexOf("\\boxed{"), text.lastIndexOf("\\fbox{"));
  if (start < 0) return null;
  const open = text.indexOf("{", start);
  for (let at = open, depth = 0; at < text.length; at++) {
    if (text[at] === "{") depth++;
    else if (text[at] === "}" && --depth === 0) return text.slice(open + 1, at);
  }
  return null;
}
