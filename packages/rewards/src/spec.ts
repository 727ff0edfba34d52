import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { parseHookPath } from "@slime/backend";
import { SlimeError } from "@slime/core";
import { graderOf } from "./graders.js";
import type { RewardSpec } from "./protocol.js";
import { unknownRule } from "./scoring.js";

/** The flags that choose a reward: `--custom-rm-path` wins over `--rm-type`. */
export interface RewardChoice {
  readonly rmType: string | null;
  readonly customRmPath: string | null;
  readonly groupRm: boolean;
  readonly python: string;
  /** Against which relative paths resolve. */
  readonly cwd: string;
}

/** Which scoring the flags choose. @throws `config.invalid` or `file.missing` before anything is started. */
export function rewardSpec(choice: RewardChoice): RewardSpec {
  if (choice.customRmPath !== null) {
    const { file, name } = parseHookPath(choice.customRmPath);
    const path = resolve(choice.cwd, file);
    if (!existsSync(path)) {
      throw new SlimeError("file.missing", `--custom-rm-path ${choice.customRmPath}: there is no file ${path}`, {
        path,
        wanted: "--custom-rm-path",
      });
    }
    if (path.endsWith(".py")) return { kind: "python", file: path, name, group: choice.groupRm, python: choice.python };
    return { kind: "module", file: path, name, group: choice.groupRm };
  }
  if (choice.rmType === null) {
    const issue = "no reward: give --rm-type (exact_match, boxed_exact_match) or --custom-rm-path FILE[:NAME]";
    throw new SlimeError("config.invalid", issue, { issues: [issue] });
  }
  if (graderOf(choice.rmType) === null) throw unknownRule(choice.rmType);
  return { kind: "rule", name: choice.rmType };
}
