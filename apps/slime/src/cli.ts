import { causeChain, factsOf, reasonOf, SlimeError } from "@slime/core";
import { runCommand } from "@slime/platform";
import { type Command, CommanderError } from "commander";
import { stoppedCommand } from "./stop-on-signals.js";

/** Exit code of a wrong command line, as shells use it. */
const usageExitCode = 2;

/**
 * Parses the command line, runs what it names, and turns any failure into lines for a person and an exit code by class:
 * 2 usage, 65 data, 66 no input, 69 unavailable, 70 bug, 73 conflict, 74 I/O, 75 try again, 78 configuration.
 */
export async function runCli(program: Command, argv: readonly string[] = process.argv): Promise<void> {
  const strict = (command: Command) => {
    command.exitOverride().showHelpAfterError(`(${commandPath(command)} --help explains)`);
    command.commands.forEach(strict);
  };
  strict(program);
  await runCommand("slime", () => program.parseAsync([...argv]), { exitCodeOf: report });
}

/** Writes what went wrong to stderr and returns the exit code. */
export function report(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : usageExitCode;
  if (SlimeError.is(error, "call.cancelled") && error.details.what === stoppedCommand) {
    process.stderr.write(`${reasonOf(error)}\n`);
    return factsOf(error).exitCode;
  }
  const known = SlimeError.isAny(error) ? error : null;
  const issues = known !== null && "issues" in known.details ? (known.details.issues as readonly string[]) : [];
  if (known !== null && issues.length > 1) {
    process.stderr.write(`error: [${known.code}] ${issues.length} problems\n${issues.map((issue) => `  - ${issue}\n`).join("")}`);
  } else {
    const [first, ...causes] = causeChain(error);
    process.stderr.write(`error: ${first ?? String(error)}\n${causes.map((cause) => `  because: ${cause}\n`).join("")}`);
  }
  if (known === null && error instanceof Error) process.stderr.write(`${error.stack ?? ""}\n`);
  return factsOf(error).exitCode;
}

function commandPath(command: Command): string {
  return command.parent === null ? command.name() : `${commandPath(command.parent)} ${command.name()}`;
}
