import type { Clock } from "@slime/core";
import type { ProgressSink } from "@slime/training";

/** Between two lines of progress where lines cannot be overwritten. */
const lineEveryMs = 2_000;

/** Progress on a terminal is one line that changes; elsewhere (a job's log) it is a line now and then. */
export function terminalProgress(out: NodeJS.WriteStream, clock: Clock): ProgressSink {
  let open = false;
  let lastMs = Number.NEGATIVE_INFINITY;
  const close = () => {
    if (open) out.write("\n");
    open = false;
  };
  return {
    update(line) {
      if (out.isTTY) {
        out.write(`\r\x1b[K${line.slice(0, Math.max(20, (out.columns ?? 120) - 1))}`);
        open = true;
        return;
      }
      if (clock.nowMs() - lastMs < lineEveryMs) return;
      lastMs = clock.nowMs();
      out.write(`${line}\n`);
    },
    done(line) {
      close();
      out.write(`${line}\n`);
    },
  };
}
