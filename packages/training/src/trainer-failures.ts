import { type ErrorCode, SlimeError } from "@slime/core";

const lossCodes: ReadonlySet<string> = new Set<ErrorCode>([
  "actor.died",
  "actor.unavailable",
  "actor.stale",
  "gang.rank_failed",
  "node.lost",
  "process.exited",
  "wire.broken",
  "call.deadline",
  "object.lost",
  "placement.removed",
]);

/** A restart would only meet these again. */
const ownCodes: ReadonlySet<string> = new Set<ErrorCode>([
  "trainer.numeric",
  "config.invalid",
  "call.failed",
  "codec.refused",
  "checkpoint.invalid",
  "unsupported",
  "data.invalid",
  "disk.full",
  "wire.limit",
]);

/** The codes of an error and its causes, outermost first. */
export function codesOf(error: unknown): readonly string[] {
  const codes: string[] = [];
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (SlimeError.isAny(at)) codes.push(at.code);
  return codes;
}

/** True when the world took the trainer away (a rank died, hangs or lost what it was given), false when training itself is wrong. */
export function isTrainerLoss(error: unknown): boolean {
  const codes = codesOf(error);
  return codes.some((code) => lossCodes.has(code)) && !codes.some((code) => ownCodes.has(code));
}

/** What a rank says of itself (no room on its disk, numbers that overflow) is the failure; that its gang failed is only how it was heard. */
export function ownFailure(error: unknown): unknown {
  for (let at: unknown = error, depth = 0; at instanceof Error && depth < 8; at = at.cause, depth++)
    if (SlimeError.isAny(at) && at.code !== "call.failed" && ownCodes.has(at.code)) return at;
  return error;
}

/** True when the same operation id may simply be asked again: its recorded answer, or its first, comes back. */
export function isLostAnswer(error: unknown): boolean {
  return SlimeError.is(error, "actor.unavailable") || SlimeError.is(error, "wire.broken");
}
