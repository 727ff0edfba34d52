import { fork } from "node:child_process";
import { once } from "node:events";
import { compiledUrl } from "@slime/core";

/** An engine in a process of its own, for what only processes do: die and hang. Needs the package built. */
export interface EngineProcess extends AsyncDisposable {
  readonly url: string;
  readonly pid: number;
  readonly signal: (name: "SIGKILL" | "SIGSTOP" | "SIGCONT") => void;
  /** Resolves when the first event of the next stream is out. */
  readonly streaming: () => Promise<void>;
}

/** Starts an engine that takes `delayMs` over each request. */
export async function engineProcess(delayMs: number): Promise<EngineProcess> {
  const child = fork(compiledUrl(import.meta.url, "./engine-child.js"), [String(delayMs)], { execArgv: [] });
  const exited = once(child, "exit");
  const [{ port }] = (await once(child, "message")) as [{ readonly port: number }];
  return {
    url: `http://127.0.0.1:${port}`,
    pid: child.pid ?? 0,
    signal: (name) => void child.kill(name),
    streaming: () => once(child, "message").then(() => {}),
    async [Symbol.asyncDispose]() {
      child.kill("SIGKILL");
      await exited;
    },
  };
}
