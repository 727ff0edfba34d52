import { SlimeError } from "@slime/core";
import type { ActorClass } from "./handle-types.js";

/** Where a host finds a class, and who hosts it. */
export interface ActorSource {
  readonly host: "node" | "python";
  /** A `file:` URL, or for Python a path or dotted module. */
  readonly module: string;
  readonly exportName: string;
  /** Python's interpreter; null: the node's own choice. */
  readonly python: string | null;
}

declare const classType: unique symbol;

/** Names an actor class without loading its module; what it knows of the class is its type. */
export interface ActorType<C extends ActorClass> extends ActorSource {
  readonly [classType]?: C;
}

const sources = new WeakMap<object, ActorSource>();
const classes = new Map<string, ActorClass>();

/**
 * Tells where hosts find these classes: one line beside them, `defineActors(import.meta.url, { Counter })`. The names are
 * those of the exports. @throws config.invalid for a name that is not a class.
 */
export function defineActors(moduleUrl: string, exported: Readonly<Record<string, ActorClass>>): void {
  for (const [exportName, actorClass] of Object.entries(exported)) {
    if (typeof actorClass !== "function") {
      const issue = `defineActors: ${exportName} is not a class`;
      throw new SlimeError("config.invalid", issue, { issues: [issue] });
    }
    sources.set(actorClass, { host: "node", module: moduleUrl, exportName, python: null });
    classes.set(`${moduleUrl}#${exportName}`, actorClass);
  }
}

/**
 * Names a class that the caller need not load: `actorType<typeof Engine>({ module: new URL("./engine.js", import.meta.url),
 * export: "Engine" })` with `import type { Engine }`.
 */
export function actorType<C extends ActorClass>(where: { readonly module: URL | string; readonly export: string }): ActorType<C> {
  return { host: "node", module: String(where.module), exportName: where.export, python: null };
}

/**
 * Names a Python class hosted by `slime_actor`, typed by an interface. `module` is a path ending in `.py` or a dotted module.
 * `Args` are the constructor's parameters.
 */
export function pythonActor<T extends object, Args extends unknown[] = []>(where: {
  readonly module: string;
  readonly className: string;
  readonly python?: string;
}): ActorType<Extract<abstract new (...args: Args) => T, ActorClass>> {
  return { host: "python", module: where.module, exportName: where.className, python: where.python ?? null };
}

/** @throws config.invalid for a class without its line. */
export function sourceOf(actorClass: ActorClass | ActorType<ActorClass>): ActorSource {
  if (typeof actorClass !== "function") return actorClass;
  const source = sources.get(actorClass);
  if (source !== undefined) return source;
  const issue = `class ${actorClass.name} has no home: add \`defineActors(import.meta.url, { ${actorClass.name} })\` beside it, and export it`;
  throw new SlimeError("config.invalid", issue, { issues: [issue] });
}

/** A class of this process by its home, for hosting it here; undefined when its module is not loaded. */
export function definedClass(module: string, exportName: string): ActorClass | undefined {
  return classes.get(`${module}#${exportName}`);
}
