import { factsOf, SlimeError } from "@slime/core";

export interface RunCommandOptions {
  /** Exit code of an error that is not ours (a parser's, say); null: ours to say. */
  readonly exitCodeOf?: (error: unknown) => number | null;
  /** Seam for tests; default: this process. */
  readonly host?: { readonly write: (text: string) => void; readonly exit: (code: number) => void };
}

/**
 * Runs a command line to its end: keeps the process alive meanwhile (the clock's timers do not), prints a failure's message
 * on stderr (the stack only of what is no `SlimeError`), and sets the exit code of its class. Whoever reads our output may
 * leave first: that ends the output, not the work.
 */
export async function runCommand(name: string, work: () => Promise<unknown>, options: RunCommandOptions = {}): Promise<void> {
  const host = options.host ?? processHost();
  const alive = setInterval(() => {}, 2 ** 30);
  try {
    await work();
  } catch (error) {
    const theirs = options.exitCodeOf?.(error) ?? null;
    if (theirs === null) host.write(`${name}: ${said(error)}\n`);
    host.exit(theirs ?? factsOf(error).exitCode);
  } finally {
    clearInterval(alive);
  }
}

function said(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  return SlimeError.isAny(error) ? error.message : (error.stack ?? error.message);
}

function processHost(): NonNullable<RunCommandOptions["host"]> {
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => {});
  return { write: (text) => void process.stderr.write(text), exit: (code) => void (process.exitCode = code) };
}
