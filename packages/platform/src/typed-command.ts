import { existsSync } from "node:fs";
import { delimiter, join } from "node:path";

type Env = Readonly<Record<string, string | undefined>>;

/**
 * A command of ours as a person here can type it: `slime`, or `npx slime` where only a `node_modules/.bin` has it. Those directories are in
 * PATH of whatever npm or a cluster started, and in no shell's.
 */
export function typedCommand(name: string, env: Env, exists: (path: string) => boolean = existsSync): string {
  const directories = (env["PATH"] ?? "").split(delimiter).filter((dir) => dir !== "" && !/[\\/]node_modules[\\/]\.bin[\\/]?$/.test(dir));
  return directories.some((dir) => exists(join(dir, name))) ? name : `npx ${name}`;
}
