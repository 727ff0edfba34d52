import { SlimeError } from "@slime/core";
import { detectPlatform } from "@slime/platform";
import { livingHead, readHeadFile } from "./head-file.js";
import { stateDirectoryOf } from "./head-options.js";

type Env = Readonly<Record<string, string | undefined>>;

const timeoutMs = 5_000;

/** What `GET /api/status` says, as far as a line needs it. */
interface Counts {
  readonly read_only: string | null;
  readonly nodes: readonly { readonly state: string }[];
  readonly actors: readonly { readonly state: string }[];
  readonly jobs: readonly { readonly state: string }[];
}

/** Whether the head of this machine lives, where, and how it is. Exit code 69 when there is none. */
export async function statusCommand(
  flags: { readonly stateDir?: string; readonly json?: true },
  env: Env,
  write: (text: string) => void,
): Promise<void> {
  const stateDirectory = stateDirectoryOf(flags.stateDir, env);
  const head = await livingHead(stateDirectory, detectPlatform(env));
  if (head === null) {
    const left = await readHeadFile(stateDirectory);
    throw new SlimeError(
      "head.unavailable",
      left === null
        ? `no head runs on ${stateDirectory}; \`slime-head start\` starts one`
        : `the head of ${left.clusterId} (pid ${left.process.pid}) is dead; \`slime-head start\` takes its cluster up again`,
      { address: left?.grpcAddress ?? "" },
    );
  }
  let counts: Counts;
  try {
    counts = (await (await fetch(`http://${head.httpAddress}/api/status`, { signal: AbortSignal.timeout(timeoutMs) })).json()) as Counts;
  } catch (error) {
    throw new SlimeError(
      "head.unavailable",
      `the head (pid ${head.process.pid}) does not answer at http://${head.httpAddress}`,
      { address: head.httpAddress },
      { cause: error },
    );
  }
  if (flags.json === true)
    return write(
      `${JSON.stringify({ ...head, read_only: counts.read_only, nodes: tally(counts.nodes), actors: tally(counts.actors), jobs: tally(counts.jobs) }, null, 2)}\n`,
    );
  write(`${head.clusterId}  life ${head.epoch}  pid ${head.process.pid}${counts.read_only === null ? "" : "  READ ONLY"}
  control plane  ${head.grpcAddress}
  jobs, state    http://${head.httpAddress}
  state          ${stateDirectory}
  nodes          ${words(counts.nodes)}
  actors         ${words(counts.actors)}
  jobs           ${words(counts.jobs)}
${counts.read_only === null ? "" : `  ${counts.read_only}\n`}\`slime status\` shows it all.
`);
}

function tally(items: readonly { readonly state: string }[]): Readonly<Record<string, number>> {
  const counts: Record<string, number> = {};
  for (const { state } of items) counts[state] = (counts[state] ?? 0) + 1;
  return counts;
}

function words(items: readonly { readonly state: string }[]): string {
  return (
    Object.entries(tally(items))
      .map(([state, count]) => `${count} ${state}`)
      .join(", ") || "none"
  );
}
