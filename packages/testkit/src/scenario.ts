/**
 * Scenarios: transcripts of a simulated cluster. A line that begins at the margin is a command, the indented lines below it its outcome,
 * a line that begins with `#` a remark. Running one yields the same text with the outcomes that came.
 */
import { type SimulatedCluster, simulatedCluster } from "./cluster.js";
import { type Arguments, commands } from "./scenario-commands.js";

/** Runs a transcript's commands and returns it with their outcomes. @throws RangeError for a command that cannot be read, with its line. */
export async function runScenario(text: string): Promise<string> {
  const out: string[] = [];
  let cluster: SimulatedCluster | null = null;
  try {
    for (const [at, line] of text.split("\n").entries()) {
      if (line.startsWith(" ")) continue;
      out.push(line);
      if (line === "" || line.startsWith("#")) continue;
      const { name, args } = parse(line, at + 1);
      if (name === "cluster") {
        cluster = await simulatedCluster({
          seed: args.number("seed", 1),
          nodes: args.number("nodes", 1),
          gpus: args.number("gpus", 0),
          cpus: args.number("cpus", 8),
          keepaliveMs: [args.number("keepalive", 4_000), 65_000],
        });
        args.done();
        out.push(...cluster.trace.map(shown));
        continue;
      }
      if (cluster === null) throw new RangeError(`line ${at + 1}: a scenario begins with cluster`);
      const from = cluster.trace.length;
      const command = commands[name];
      if (command === undefined)
        throw new RangeError(`line ${at + 1}: there is no command ${name}; there are cluster, ${Object.keys(commands).join(", ")}`);
      const said = await command(cluster, args);
      args.done();
      out.push(...cluster.trace.slice(from).map(shown), ...said.map((words) => `  ${words}`));
    }
  } finally {
    await cluster?.close();
  }
  return out.join("\n");
}

/** A trace line as an outcome: seconds to a tenth, then words. */
function shown(line: string): string {
  const space = line.indexOf(" ");
  return `  ${Number(line.slice(0, space)).toFixed(1)} ${line.slice(space + 1)}`;
}

/** `actor a1 job=j1 GPU=1 script="slow-100+fails"`. */
function parse(line: string, number: number): { readonly name: string; readonly args: Arguments } {
  const words = [...line.matchAll(/(?:[^\s"]+|"[^"]*")+/g)].map(([word]) => word);
  const [name = "", ...rest] = words;
  const subjects = rest.filter((word) => !word.includes("="));
  const named = new Map(
    rest
      .filter((word) => word.includes("="))
      .map((word) => [word.slice(0, word.indexOf("=")), word.slice(word.indexOf("=") + 1).replaceAll('"', "")]),
  );
  const take = (key: string): string | undefined => {
    const value = named.get(key);
    named.delete(key);
    return value;
  };
  const args: Arguments = {
    subject() {
      const subject = subjects.shift();
      if (subject === undefined) throw new RangeError(`line ${number}: ${name} needs a name`);
      return subject;
    },
    text: (key, fallback) => take(key) ?? fallback,
    maybe: take,
    number: (key, fallback) => Number(take(key) ?? fallback),
    resources: () =>
      Object.fromEntries(
        ["GPU", "CPU"].flatMap((key) => {
          const amount = take(key);
          return amount === undefined ? [] : [[key, Number(amount)]];
        }),
      ),
    done() {
      const left = [...subjects, ...named.keys()];
      if (left.length > 0) throw new RangeError(`line ${number}: ${name} does not know ${left.join(", ")}`);
    },
  };
  return { name, args };
}
