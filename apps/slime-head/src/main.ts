import { runCommand } from "@slime/platform";
import { Command, CommanderError } from "commander";
import type { StopFlags } from "./stop-command.js";
import { version } from "./version.js";

const environment = `
Environment:
  SLIME_HOME      the head's state lies in $SLIME_HOME/head (default ~/.slime)
  SLIME_NODE_IP   as --node-ip
  SLIME_LOG       as --log
  SLIME_PLATFORM  "portable" does without /proc

Exit codes: 0 ended in order · 2 usage · 69 state directory or port in use, or no head · 74 disk or damaged state · 78 configuration`;

const write = (text: string) => void process.stdout.write(text);
// Commands are loaded when they run: help and usage errors come at once.
const program = new Command("slime-head")
  .description("The head of a slime cluster: nodes, placement, actors, jobs; durable across its own death.")
  .version(version)
  .showHelpAfterError("(--help shows examples)")
  .exitOverride();

program
  .command("start")
  .description("run the head in this terminal until Ctrl-C")
  .option("--port <port>", "control plane, for workers and drivers; 0: any free port (default: 6380)")
  .option("--http-port <port>", "jobs, state and /metrics; 0: any free port (default: 8265)")
  .option("--host <address>", "address to bind, loopback only (default: 127.0.0.1)")
  .option("--node-ip <address>", "address to advertise, loopback only (default: 127.0.0.1)")
  .option("--state-dir <dir>", "durable state, on a local disk (default: $SLIME_HOME/head)")
  .option("--grace <seconds>", "what jobs and actors get to end at a stop (default: 10)")
  .option("--log <format>", "text or json (default: text on a terminal)")
  .addHelpText(
    "after",
    `
Examples:
  slime-head start
  slime-head start --port 0 --http-port 0 --state-dir /tmp/try   # a second cluster beside the first

A head that was killed is started again by the same command: jobs, actors and placement groups are as they were, and what
runs on the workers was not disturbed.
${environment}`,
  )
  .action(async (flags: Record<string, unknown>) => (await import("./start-command.js")).startCommand(flags, process.env, write));

program
  .command("status")
  .description("whether a head runs on this machine, where it listens, how many nodes, actors and jobs it has")
  .option("--state-dir <dir>", "the head that was started with this --state-dir")
  .option("--json", "for machines")
  .action(async (flags: { stateDir?: string; json?: true }) =>
    (await import("./status-command.js")).statusCommand(flags, process.env, write),
  );

program
  .command("stop")
  .description("end the cluster: jobs, actors, workers, then the head")
  .option("--state-dir <dir>", "the head that was started with this --state-dir")
  .option("--leave-workers", "end the head alone; workers and what they run wait for the next `slime-head start`")
  .option("--grace <seconds>", "what jobs and actors get to end", "10")
  .addHelpText(
    "after",
    "\nExamples:\n  slime-head stop\n  slime-head stop --leave-workers   # to start it again at once: nothing that runs is disturbed",
  )
  .action(async (flags: StopFlags) => (await import("./stop-command.js")).stopCommand(flags, process.env, write));

await runCommand("slime-head", () => program.parseAsync(), {
  exitCodeOf: (error) => (error instanceof CommanderError ? (error.exitCode === 0 ? 0 : 2) : null),
});
