import { SlimeError } from "@slime/core";

/** A data file, or a slice of its rows: `train.jsonl@[100:-20]`. */
export interface DataPath {
  readonly file: string;
  /** Python's slice bounds; negative ones count from the end. */
  readonly slice: { readonly start: number | null; readonly end: number | null } | null;
}

/** @throws SlimeError `config.invalid` when what follows `@` is no slice. */
export function parseDataPath(path: string): DataPath {
  const match = /^(?<file>.*)@\[(?<start>-?\d+)?:(?<end>-?\d+)?\]$/s.exec(path);
  if (match?.groups === undefined) {
    if (!/@\[[^/]*\]?$/.test(path)) return { file: path, slice: null };
    const issue = `${path}: a slice reads FILE@[START:END], with whole numbers or nothing for START and END`;
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  const bound = (text: string | undefined) => (text === undefined ? null : Number(text));
  return { file: match.groups["file"] ?? "", slice: { start: bound(match.groups["start"]), end: bound(match.groups["end"]) } };
}

/** The rows [from, to) of `count` that a slice keeps, by Python's rules: bounds beyond the ends are brought to them. */
export function sliceRange(slice: DataPath["slice"], count: number): { readonly from: number; readonly to: number } {
  const bring = (bound: number | null, missing: number) =>
    bound === null ? missing : Math.min(count, Math.max(0, bound < 0 ? bound + count : bound));
  const from = bring(slice?.start ?? null, 0);
  return { from, to: Math.max(from, bring(slice?.end ?? null, count)) };
}
