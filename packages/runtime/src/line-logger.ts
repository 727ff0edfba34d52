import type { Clock, LogFields, Logger } from "@slime/core";

type Level = "debug" | "info" | "warn" | "error";
const order: { readonly [L in Level]: number } = { debug: 0, info: 1, warn: 2, error: 3 };

/** One JSON line per event, as every process of the cluster writes them (style.md §7). Below `least` nothing is written. */
export function lineLogger(clock: Clock, write: (line: string) => void, least: Level = "info", bound: LogFields = {}): Logger {
  const at =
    (level: Level) =>
    (event: string, fields: LogFields = {}) => {
      if (order[level] < order[least]) return;
      write(`${JSON.stringify({ time: clock.wallMs(), level, event, ...bound, ...fields })}\n`);
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => lineLogger(clock, write, least, { ...bound, ...fields }),
  };
}
