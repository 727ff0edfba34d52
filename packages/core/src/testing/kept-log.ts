import type { LogFields, Logger } from "../logger.js";

export interface LogLine {
  readonly level: "debug" | "info" | "warn" | "error";
  readonly event: string;
  readonly fields: LogFields;
}

/** A logger that keeps its lines, for tests that assert what was said. */
export function keptLog(): { readonly log: Logger; readonly lines: readonly LogLine[] } {
  const lines: LogLine[] = [];
  const make = (bound: LogFields): Logger => {
    const at =
      (level: LogLine["level"]) =>
      (event: string, fields: LogFields = {}) =>
        void lines.push({ level, event, fields: { ...bound, ...fields } });
    return { debug: at("debug"), info: at("info"), warn: at("warn"), error: at("error"), child: (fields) => make({ ...bound, ...fields }) };
  };
  return { log: make({}), lines };
}
