/**
 * The compiled file `relative` beside a module, for starting it in a worker or process of its own.
 * Tests import packages from their sources, where only `dist` holds what Node can run: `.../src/pool.ts` maps to `.../dist/`.
 */
export function compiledUrl(moduleUrl: string, relative: string): URL {
  const url = new URL(relative, moduleUrl);
  if (moduleUrl.endsWith(".ts")) url.pathname = url.pathname.replace(/\/src\/(?!.*\/src\/)/, "/dist/");
  return url;
}
