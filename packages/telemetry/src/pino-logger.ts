import { causeChain, type LogFields, type Logger, SlimeError, systemClock } from "@slime/core";
import { type Logger as Pino, pino, stdSerializers } from "pino";

export type LogLevel = "debug" | "info" | "warn" | "error";

export interface PinoLoggerOptions {
  readonly level?: LogLevel;
  /** A file to append to, or a descriptor; default: stderr, so that stdout stays the program's own. */
  readonly destination?: string | number;
  /** Ids on every line. */
  readonly fields?: LogFields;
}

/**
 * Core's `Logger` over pino: one line of JSON each, `{"level":"info","at":…,"event":"node.joined","nodeId":…}`.
 * Lines are written at once: a killed process has lost none.
 */
export function pinoLogger(options: PinoLoggerOptions = {}): Logger {
  const destination = pino.destination({ dest: options.destination ?? 2, sync: true, mkdir: true });
  return wrap(
    pino(
      {
        level: options.level ?? "info",
        base: { ...options.fields },
        messageKey: "event",
        timestamp: () => `,"at":${systemClock.wallMs()}`,
        formatters: { level: (label) => ({ level: label }) },
        serializers: { error: serializeError },
      },
      destination,
    ),
  );
}

function wrap(inner: Pino): Logger {
  return {
    debug: (event, fields = {}) => inner.debug(fields, event),
    info: (event, fields = {}) => inner.info(fields, event),
    warn: (event, fields = {}) => inner.warn(fields, event),
    error: (event, fields = {}) => inner.error(fields, event),
    child: (fields) => wrap(inner.child(fields)),
  };
}

/** Code, message, stack and the causes' messages; anything else as text. */
function serializeError(error: unknown): unknown {
  if (!(error instanceof Error)) return String(error);
  return {
    ...(SlimeError.isAny(error) ? { code: error.code, details: error.details } : { name: error.name }),
    message: error.message,
    stack: stdSerializers.err(error).stack,
    causes: causeChain(error).slice(1),
  };
}
