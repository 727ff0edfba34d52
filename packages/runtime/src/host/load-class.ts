import { createRequire } from "node:module";
import { isAbsolute, join } from "node:path";
import { pathToFileURL } from "node:url";
import { SlimeError } from "@slime/core";

let typescript = false;

/**
 * Loads a class from a module: a `file:` URL, an absolute path, or what the working directory's packages export. TypeScript goes
 * through tsx on every Node, so that `.js` specifiers of `.ts` files and all of TypeScript's syntax work alike everywhere.
 * @throws file.missing when the module has no such export; otherwise what the module threw.
 */
export async function loadClass(module: string, exportName: string): Promise<unknown> {
  const url = moduleUrl(module);
  if (!typescript && /\.[cm]?tsx?$/.test(url)) {
    const { register } = await import("tsx/esm/api");
    register();
    typescript = true;
  }
  const loaded = (await import(url)) as Readonly<Record<string, unknown>>;
  const found = loaded[exportName];
  if (typeof found === "function") return found;
  const classes = Object.keys(loaded).filter((name) => typeof loaded[name] === "function");
  throw new SlimeError("file.missing", `${url} exports no class ${exportName}; it exports ${classes.join(", ") || "no class"}`, {
    path: url,
    wanted: `an exported class ${exportName}`,
  });
}

function moduleUrl(module: string): string {
  if (module.startsWith("file:")) return module;
  if (isAbsolute(module)) return pathToFileURL(module).href;
  return pathToFileURL(createRequire(join(process.cwd(), "actor.js")).resolve(module)).href;
}
