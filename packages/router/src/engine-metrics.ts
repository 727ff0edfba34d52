import type { EngineAnswer } from "./fan-out.js";

/** A sample of Prometheus text: name, labels with their braces if any, the rest. */
const sample = /^([a-zA-Z_:][a-zA-Z0-9_:]*)(\{.*\})?(\s.+)$/;

/**
 * All engines' metrics as one Prometheus text, each sample labelled with its engine and each name described once. As sglang_router does it, `:`
 * in names becomes `_`. What is no sample is left out; so is an engine that did not answer.
 */
export function engineMetrics(answers: readonly EngineAnswer[]): string {
  const described = new Set<string>();
  const byName = new Map<string, string[]>();
  for (const { worker, status, body } of answers) {
    if (status !== 200) continue;
    for (const line of body.split("\n")) {
      if (line.startsWith("#")) {
        const [mark = "", kind = "", name = "", ...text] = line.split(" ");
        const key = `${kind} ${name}`;
        if (described.has(key) || (kind !== "HELP" && kind !== "TYPE")) continue;
        described.add(key);
        lines(byName, family(name)).push([mark, kind, plain(name), ...text].join(" "));
        continue;
      }
      const [, name, labels = "{}", rest] = sample.exec(line) ?? [];
      if (name === undefined || rest === undefined) continue;
      const others = labels.slice(1, -1);
      lines(byName, family(name)).push(`${plain(name)}{worker_addr="${worker.url}"${others === "" ? "" : `,${others}`}}${rest}`);
    }
  }
  return [...byName.values()]
    .flat()
    .map((line) => `${line}\n`)
    .join("");
}

function lines(byName: Map<string, string[]>, name: string): string[] {
  let list = byName.get(name);
  if (list === undefined) byName.set(name, (list = []));
  return list;
}

/** A histogram's and a counter's samples belong to the name without their ending. */
function family(name: string): string {
  return plain(name).replace(/_(?:bucket|sum|count|total|created)$/, "");
}

function plain(name: string): string {
  return name.replaceAll(":", "_");
}
