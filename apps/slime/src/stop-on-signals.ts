import { SlimeError } from "@slime/core";

/** What was cancelled, in the failure of a command that somebody stopped: not a failure to explain. */
export const stoppedCommand = "command";

/** Aborts at the first Ctrl-C or SIGTERM; a second one ends the process at once, as people expect. */
export function stopOnSignals(onStop: (signal: NodeJS.Signals) => void): { readonly signal: AbortSignal } & Disposable {
  const controller = new AbortController();
  const onSignal = (name: NodeJS.Signals) => {
    if (controller.signal.aborted) process.exit(130);
    onStop(name);
    controller.abort(new SlimeError("call.cancelled", `stopped by ${name}`, { what: stoppedCommand }));
  };
  const signals: readonly NodeJS.Signals[] = ["SIGINT", "SIGTERM"];
  for (const name of signals) process.on(name, onSignal);
  return {
    signal: controller.signal,
    [Symbol.dispose]: () => {
      for (const name of signals) process.off(name, onSignal);
    },
  };
}
