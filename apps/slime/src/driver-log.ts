import type { Clock, LogFields, Logger } from "@slime/core";

type Level = "debug" | "info" | "warn" | "error";
const shownLevels: readonly Level[] = ["warn", "error"];

/** The driver's log: JSON lines on stderr, warnings and errors only, since progress goes to stdout. */
export function driverLog(clock: Clock, bound: LogFields = {}): Logger {
  const at =
    (level: Level) =>
    (event: string, fields: LogFields = {}) => {
      if (shownLevels.includes(level))
        process.stderr.write(`${JSON.stringify({ at: clock.wallMs(), level, event, ...bound, ...fields })}\n`);
    };
  return {
    debug: at("debug"),
    info: at("info"),
    warn: at("warn"),
    error: at("error"),
    child: (fields) => driverLog(clock, { ...bound, ...fields }),
  };
}
