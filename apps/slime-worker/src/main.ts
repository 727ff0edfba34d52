import { systemClock } from "@slime/core";
import { runCommand, supervise } from "@slime/platform";
import { Command, CommanderError } from "commander";
import type { StopFlags } from "./stop-command.js";
import { version } from "./version.js";

const environment = `
Environment:
  SLIME_HEAD_ADDRESS  the head's address, where ADDRESS is left out
  SLIME_HOME          state and logs of nodes lie below $SLIME_HOME/nodes (default ~/.slime)
  SLIME_NODE_IP       as --node-ip
  SLIME_LOG           as --log
  SLIME_SOCKET_DIR    sockets of this machine's processes (default /tmp/slime-<uid>-<cluster>)
  SLIME_STORE_DIR     shared memory for large values (default /dev/shm/slime-<cluster>)
  SLIME_PLATFORM      "portable" does without /proc, /dev/shm and control groups

Exit codes: 0 ended in order · 2 usage · 69 no head, or the state directory is in use · 74 disk · 78 configuration`;

const write = (text: string) => void process.stdout.write(text);
// Commands are loaded when they run: help and usage errors come at once.
const program = new Command("slime-worker")
  .description("Gives this machine to a slime cluster: its processors, memory and GPUs.")
  .version(version)
  .showHelpAfterError("(--help shows examples)")
  .exitOverride();

program
  .command("join")
  .description("join the cluster whose head is at ADDRESS, and stay until stopped")
  .argument("[ADDRESS]", "host:port of the head, loopback only (default: SLIME_HEAD_ADDRESS, then the head of this machine)")
  .option("--num-gpus <n>", "declare n virtual GPUs; without it nvidia-smi is asked for the real ones")
  .option("--num-cpus <n>", "processors to give (default: what this process may use)")
  .option("--memory <amount>", "memory to give, in MiB or with a unit: 8GiB (default: the machine's)")
  .option("--resources <json>", "further resources: '{\"licence\": 2}'")
  .option("--labels <list>", "labels that placement can ask for: zone=a,disk=ssd")
  .option("--state-dir <dir>", "this node's state and logs (default: below SLIME_HOME, found again after a crash)")
  .option("--name <name>", "shown instead of the host name")
  .option("--node-ip <address>", "address to advertise, loopback only (default: 127.0.0.1)")
  .option("--pool-size <n>", "hosts kept ready for actors (default: 2)")
  .option("--wait <seconds>", "how long to wait for a head that does not answer yet (default: 15)")
  .option("--grace <seconds>", "what actors and drivers get to end at a stop (default: 10)")
  .option("--restart", "start the daemon again when it was killed or crashed; what runs here goes on")
  .option("--log <format>", "text or json (default: text on a terminal)")
  .addHelpText(
    "after",
    `
Examples:
  slime-worker join                                 # the head that was started on this machine
  slime-worker join 127.0.0.1:6380                  # all processors, memory and GPUs of this machine
  slime-worker join 127.0.0.1:6380 --num-gpus 4     # four virtual GPUs, for trying placements without any
  slime-worker join 127.0.0.1:6380 --labels zone=a  # several nodes may share a machine: run it again

A daemon that was killed is replaced by running the same command again, or by itself with --restart: actors and jobs
that ran under it go on (they wait 60 s for it), their processes unchanged.
${environment}`,
  )
  .action(async (address: string | undefined, { restart, ...flags }: Record<string, unknown>) => {
    if (restart === true) process.exitCode = await superviseJoin();
    else await (await import("./join-command.js")).joinCommand({ ...flags, address }, process.env);
  });

program
  .command("stop")
  .description("end nodes of this machine: actors, drivers, sockets, ports, shared memory; logs stay")
  .argument("[NODE...]", "node ids, or their beginnings; may be left out when there is one")
  .option("--all", "every node of this machine")
  .option("--address <address>", "only nodes of the head at this address; a node elsewhere is stopped through it")
  .option("--state-dir <dir>", "the node that was joined with this --state-dir")
  .option("--grace <seconds>", "what actors and drivers get to end", "10")
  .addHelpText(
    "after",
    "\nExamples:\n  slime-worker stop            # the one node of this machine\n  slime-worker stop --all\n  slime-worker stop 6f2c01     # by the beginning of its id\n\nWorks without a head, and also cleans up after a daemon that was killed.",
  )
  .action(async (nodes: string[], flags: StopFlags) => (await import("./stop-command.js")).stopCommand(nodes, flags, process.env, write));

program
  .command("status")
  .description("nodes of this machine, with or without a head")
  .option("--state-dir <dir>", "also the node that was joined with this --state-dir")
  .option("--json", "for machines")
  .action(async (flags: { json?: boolean; stateDir?: string }) =>
    (await import("./status-command.js")).statusCommand(flags, process.env, write),
  );

/** The same command without --restart, again and again. */
async function superviseJoin(): Promise<number> {
  const [script = "", ...args] = process.argv.slice(1);
  const { textLog } = await import("./text-log.js");
  const command = [process.execPath, script, ...args.filter((arg) => arg !== "--restart")] as const;
  return supervise({ command, clock: systemClock, log: textLog((line) => process.stderr.write(line)) });
}

await runCommand("slime-worker", () => program.parseAsync(), {
  exitCodeOf: (error) => (error instanceof CommanderError ? (error.exitCode === 0 ? 0 : 2) : null),
});
