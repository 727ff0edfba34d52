import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import { dirname, join, relative, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { describe, expect, it } from "vitest";

const root = resolve(dirname(fileURLToPath(import.meta.url)), "..");
const read = (path: string) => readFileSync(join(root, path), "utf8");
const files = execFileSync("git", ["ls-files", "--cached", "--others", "--exclude-standard"], {
  cwd: root,
  encoding: "utf8",
  maxBuffer: 1 << 26,
})
  .split("\n")
  .filter((path) => path !== "" && existsSync(join(root, path)));
const isSource = (path: string) => /^(packages|apps)\/[^/]+\/src\/.*\.ts$/.test(path) && !path.includes("/gen/");
const isTest = (path: string) => /\.test(-d)?\.ts$/.test(path) || path.includes("/testing/") || path.includes("/conformance/");
const sources = files.filter(isSource);
const production = sources.filter((path) => !isTest(path));

interface Manifest {
  readonly name: string;
  readonly dependencies?: Readonly<Record<string, string>>;
}

/** The layer table of packages/README.md: rows in order, each with the packages it may import. */
const layers = new Map(
  read("packages/README.md")
    .split("\n")
    .flatMap((line) => {
      const cells = line.split("|").map((cell) => cell.trim());
      if (cells.length !== 5 || !/^[a-z-]+$/.test(cells[1] ?? "") || cells[1] === "package" || /^-+$/.test(cells[1] ?? "")) return [];
      return [
        [
          cells[1] ?? "",
          (cells[3] ?? "")
            .split(",")
            .map((cell) => cell.trim())
            .filter((cell) => cell !== ""),
        ] as const,
      ];
    }),
);
const order = [...layers.keys()];
const workspaces = [...order.map((name) => `packages/${name}`), "apps/slime-head", "apps/slime-worker", "apps/slime"];
const internal = (manifest: Manifest) =>
  Object.keys(manifest.dependencies ?? {}).flatMap((name) => (name.startsWith("@slime/") ? [name.slice("@slime/".length)] : []));
const importsOf = (path: string) => [...read(path).matchAll(/(?:\bfrom\s+|\bimport\s*\(?\s*)"([^"]+)"/g)].map((match) => match[1] ?? "");

describe("layers", () => {
  it("the table has every package, in an order without upward imports", () => {
    expect(
      files
        .filter((path) => /^packages\/[^/]+\/package\.json$/.test(path))
        .map((path) => path.split("/")[1])
        .sort(),
    ).toEqual([...order].sort());
    for (const [name, allowed] of layers) {
      for (const other of allowed)
        if (other !== "any") expect(order.indexOf(other), `${name} imports ${other}`).toBeLessThan(order.indexOf(name));
    }
  });

  it.each(workspaces)("%s: package.json, references and imports agree with the table", (folder) => {
    const manifest = JSON.parse(read(`${folder}/package.json`)) as Manifest;
    const declared = internal(manifest).sort();
    const allowed = layers.get(folder.replace("packages/", ""));
    if (allowed !== undefined && !allowed.includes("any"))
      expect(
        declared.filter((name) => !allowed.includes(name)),
        "beyond the table",
      ).toEqual([]);
    const tsconfig = JSON.parse(read(`${folder}/tsconfig.json`)) as { readonly references: readonly { readonly path: string }[] };
    expect(tsconfig.references.map((reference) => reference.path.replace("../../packages/", "")).sort(), "tsconfig references").toEqual(
      declared,
    );

    const external = new Set(Object.keys(manifest.dependencies ?? {}));
    for (const path of sources.filter((source) => source.startsWith(`${folder}/src/`))) {
      for (const specifier of importsOf(path)) {
        if (specifier.startsWith(".") || specifier.startsWith("node:")) continue;
        const name = specifier
          .split("/")
          .slice(0, specifier.startsWith("@") ? 2 : 1)
          .join("/");
        if (isTest(path) && (["vitest", "fast-check"].includes(name) || name === manifest.name || name.startsWith("@slime/"))) continue;
        expect(external.has(name), `${path} imports ${name}, which ${folder}/package.json does not name`).toBe(true);
      }
    }
    const used = new Set(
      files
        .filter((path) => /\.ts$/.test(path))
        .filter((source) => source.startsWith(`${folder}/`))
        .flatMap(importsOf)
        .map((specifier) =>
          specifier
            .split("/")
            .slice(0, specifier.startsWith("@") ? 2 : 1)
            .join("/"),
        ),
    );
    if (folder !== "packages/testkit")
      expect(
        [...external].filter((name) => !used.has(name)),
        "named but never imported",
      ).toEqual([]);
  });

  it("no file imports itself through others", () => {
    const edges = new Map(
      production.map((path) => [
        path,
        importsOf(path)
          .filter((s) => s.startsWith("."))
          .map((s) => join(dirname(path), s).replace(/\.js$/, ".ts")),
      ]),
    );
    const state = new Map<string, "open" | "done">();
    const cycles: string[] = [];
    const visit = (path: string, trail: readonly string[]) => {
      if (state.get(path) === "open") cycles.push([...trail.slice(trail.indexOf(path)), path].join(" → "));
      if (state.has(path)) return;
      state.set(path, "open");
      for (const next of edges.get(path) ?? []) visit(next, [...trail, path]);
      state.set(path, "done");
    };
    for (const path of edges.keys()) visit(path, []);
    expect(cycles).toEqual([]);
  });
});

/** Where a rule has exceptions they are listed here; the lists only shrink. */
const bans: readonly { readonly name: string; readonly pattern: RegExp; readonly within: RegExp; readonly except: RegExp }[] = [
  {
    name: "wall clock, chance and timers only in core and platform",
    pattern: /\b(Date\.now|Math\.random|setTimeout|setInterval)\(/,
    within: /./,
    except: /^packages\/(core|platform)\//,
  },
  {
    name: "process.env only in apps and platform, and where a process meets its environment",
    pattern: /process\.env/,
    within: /^packages\//,
    except: /^packages\/(platform|node|runtime|rewards)\//,
  },
  { name: "no console", pattern: /\bconsole\./, within: /./, except: /$^/ },
  { name: "nothing is left for later", pattern: /\b(TODO|FIXME|HACK|XXX)\b/, within: /./, except: /$^/ },
  { name: "packages are imported by name", pattern: /from "(\.\.\/){2,}(packages|apps)\//, within: /./, except: /$^/ },
];

describe("bans", () => {
  it.each(bans)("$name", ({ pattern, within, except }) => {
    const found = production
      .filter((path) => within.test(path) && !except.test(path))
      .flatMap((path) =>
        read(path)
          .split("\n")
          .flatMap((line, at) => (pattern.test(line) && !/^\s*(\/\/|\*|\/\*)/.test(line) ? [`${path}:${at + 1}: ${line.trim()}`] : [])),
      );
    expect(found).toEqual([]);
  });
});

/**
 * Ratchets: a number may fall, and then this line falls with it. Files that stay longer, each one state machine whose phases share all
 * of its state: packages/rpc/src/peer.ts (a connection), packages/runtime/src/actor-channel.ts (a process's calls to one actor).
 */
const ratchet = { longFiles: 2, exportsWithoutComment: 0 };

describe("ratchets", () => {
  it("files of at most 300 lines", () => {
    const long = production.map((path) => ({ path, lines: read(path).split("\n").length - 1 })).filter(({ lines }) => lines > 300);
    expect(long.length, JSON.stringify(long, null, 1)).toBeLessThanOrEqual(ratchet.longFiles);
  });

  it("every exported function and class says what it is for", () => {
    const bare = production.flatMap((path) => {
      const lines = read(path).split("\n");
      return lines.flatMap((line, at) =>
        /^export (async )?(abstract )?(function|class) /.test(line) && !/\*\/\s*$/.test(lines[at - 1] ?? "") ? [`${path}:${at + 1}`] : [],
      );
    });
    expect(bare.length, JSON.stringify(bare, null, 1)).toBeLessThanOrEqual(ratchet.exportsWithoutComment);
  });

  it("every package has a README", () => {
    expect(
      workspaces.filter((folder) => !existsSync(join(root, folder, "README.md"))).map((folder) => relative(root, join(root, folder))),
    ).toEqual([]);
  });
});
