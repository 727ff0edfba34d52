// One Node program after another, each of which ends in order what it started.
import { spawn } from "node:child_process";
import { root } from "./setup.mjs";

/**
 * Runs a Node program in the clone; its stderr is shown, its stdout kept, or both written to the file `logFd`. Past `msMax` it is asked to
 * end. Ctrl-C reaches it too: this waits until it has ended its cluster, then ends with 130.
 */
export function runNode(args, { logFd, msMax }) {
  const stdio = logFd === undefined ? ["ignore", "pipe", "inherit"] : ["ignore", logFd, logFd];
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, args, { cwd: root, stdio });
    let stopped = false;
    const stop = () => {
      if (!stopped) child.kill("SIGTERM");
      stopped = true;
    };
    // A terminal gives Ctrl-C to the whole group, so the program has it already.
    const interrupted = () => {
      stopped = true;
    };
    process.on("SIGINT", interrupted).on("SIGTERM", stop);
    const late = setTimeout(() => child.kill("SIGTERM"), msMax);
    let stdout = "";
    child.stdout?.setEncoding("utf8").on("data", (text) => {
      stdout += text;
    });
    child.once("error", reject);
    child.once("close", (status) => {
      clearTimeout(late);
      process.off("SIGINT", interrupted).off("SIGTERM", stop);
      if (stopped) process.exit(130);
      resolve({ status, stdout });
    });
  });
}

/** The JSON line that a bench prints; null when it failed or printed none. */
export function benchLine({ status, stdout }) {
  const found = status === 0 ? stdout.split("\n").findLast((line) => line.startsWith('{"bench"')) : undefined;
  return found === undefined ? null : JSON.parse(found);
}
