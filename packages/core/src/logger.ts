/** What a log line may carry beside its event: plain data, ids and numbers first. */
export type LogFields = Readonly<Record<string, unknown>>;

/**
 * `log.info("node.joined", { nodeId, gpus: 8 })`: a stable event name, then fields.
 * error: a person must act; warn: healed by itself; info: once in a thing's life; debug: per message.
 */
export interface Logger {
  readonly debug: (event: string, fields?: LogFields) => void;
  readonly info: (event: string, fields?: LogFields) => void;
  readonly warn: (event: string, fields?: LogFields) => void;
  readonly error: (event: string, fields?: LogFields) => void;
  /** A logger that adds `fields` to each of its lines. */
  readonly child: (fields: LogFields) => Logger;
}

export const silentLogger: Logger = {
  debug() {},
  info() {},
  warn() {},
  error() {},
  child: () => silentLogger,
};
