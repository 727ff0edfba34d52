import { type ErrorCode, SlimeError } from "@slime/core";

/**
 * An error as it crosses a wire: plain data, the same in Python.
 * Invariants: F1 code, message, details, stack, origin and causes survive any number of hops; F2 a code this process
 * does not know survives too; F3 making one never throws.
 */
export interface Failure {
  readonly code: string;
  /** Without the code in front. */
  readonly message: string;
  /** The code's details; null when they are no plain data. */
  readonly details: unknown;
  /** Where it was thrown, in the words of the language it was thrown in. */
  readonly stack: string | null;
  /** The process it was thrown in: "node_…/actor_…#1/pid 4711"; null: in the process that sends it. */
  readonly origin: string | null;
  readonly cause: Failure | null;
}

const causesMax = 8;
const textMax = 64 * 1024;

const origins = new WeakMap<Error, { readonly origin: string | null; readonly stack: string | null }>();

/** The process an error came from, as it said itself; null for one thrown here. */
export function originOf(error: unknown): string | null {
  return error instanceof Error ? (origins.get(error)?.origin ?? null) : null;
}

/** The stack where an error was thrown, in its own process and language; null for one thrown here. */
export function remoteStackOf(error: unknown): string | null {
  return error instanceof Error ? (origins.get(error)?.stack ?? null) : null;
}

/**
 * An error (or whatever was thrown) as plain data. What is no `SlimeError` becomes `call.failed` with its own name, message and stack.
 * @param origin names this process; an error that came from another keeps its own.
 */
export function toFailure(error: unknown, origin: string | null = null, where = "call"): Failure {
  return failureOf(error, origin, where, causesMax);
}

function failureOf(error: unknown, origin: string | null, where: string, causesLeft: number): Failure {
  if (!(error instanceof Error))
    return {
      code: "call.failed",
      message: `threw ${shown(error)}`,
      details: { name: typeof error, where },
      stack: null,
      origin,
      cause: null,
    };
  const came = origins.get(error);
  const known = SlimeError.isAny(error);
  const code: string = known ? error.code : "call.failed";
  const prefix = `[${code}] `;
  const message = known
    ? error.message.startsWith(prefix)
      ? error.message.slice(prefix.length)
      : error.message
    : `${error.name}: ${error.message}`;
  const { cause } = error;
  return {
    code,
    message: cut(message),
    details: known ? plain(error.details) : { name: error.name, where },
    stack: came === undefined ? cut(String(error.stack ?? "")) : came.stack,
    origin: came?.origin ?? origin,
    cause:
      cause === undefined || cause === null || causesLeft === 0 ? null : failureOf(cause, came?.origin ?? origin, where, causesLeft - 1),
  };
}

/** The error again: a `SlimeError` with the sender's stack in its own, so that a log line shows where it was thrown. */
export function fromFailure(failure: Failure): SlimeError {
  const cause = failure.cause === null ? undefined : { cause: fromFailure(failure.cause) };
  // The code and its details came over a wire: whoever reads them narrows by code, as with any SlimeError (F2).
  const error = new SlimeError(failure.code as ErrorCode, failure.message, failure.details as never, cause);
  origins.set(error, { origin: failure.origin, stack: failure.stack });
  if (failure.stack !== null) error.stack = `${error.message}\n    thrown in ${failure.origin ?? "the other process"}:\n${failure.stack}`;
  return error;
}

/** Checks data that should be a failure; what is missing is filled in, because a failed call must still fail with something. */
export function readFailure(value: unknown, depth = 0): Failure {
  const from: Readonly<Record<string, unknown>> =
    typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Readonly<Record<string, unknown>>) : {};
  const { code, message, details, stack, origin, cause } = from;
  return {
    code: typeof code === "string" ? code : "call.failed",
    message: typeof message === "string" ? message : "the other end sent a failure without a message",
    details: details ?? null,
    stack: typeof stack === "string" ? stack : null,
    origin: typeof origin === "string" ? origin : null,
    cause: cause === null || cause === undefined || depth >= causesMax ? null : readFailure(cause, depth + 1),
  };
}

function cut(text: string): string {
  return text.length <= textMax ? text : `${text.slice(0, textMax)}… (${text.length - textMax} more characters)`;
}

/** A copy by JSON: details are plain data (E2), and small; anything else is left behind rather than lose the failure (F3). */
function plain(details: unknown): unknown {
  try {
    return JSON.parse(JSON.stringify(details) ?? "null") as unknown;
  } catch {
    return null;
  }
}

function shown(value: unknown): string {
  try {
    return cut(typeof value === "string" ? value : (JSON.stringify(value) ?? String(value)));
  } catch {
    return typeof value;
  }
}
