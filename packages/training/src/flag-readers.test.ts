import { readdirSync, readFileSync, statSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { flagListing, keyOf } from "@slime/rl-config";
import { describe, expect, it } from "vitest";

const repository = fileURLToPath(new URL("../../../", import.meta.url));

/** Sources of a package without its tests and without the table that declares the flags. */
function sources(directory: string): string {
  return readdirSync(directory)
    .map((name) => join(directory, name))
    .map((path) =>
      statSync(path).isDirectory() ? sources(path) : /(?<!\.test|flags(-\w+)?|\.test-d)\.ts$/.test(path) ? readFileSync(path, "utf8") : "",
    )
    .join("\n");
}

describe("F1: every flag is read where its row says", () => {
  const texts = new Map<string, string>();
  it.each(flagListing().map(({ name, reader }) => [name, reader]))("--%s in %s", (name, reader) => {
    const text = texts.get(reader) ?? sources(join(repository, reader, "src"));
    texts.set(reader, text);
    expect(
      new RegExp(`\\b[A-Za-z]+\\.${keyOf(name)}\\b|[{,] *${keyOf(name)}\\b[^}]*\\} = (config|input\\.config)`).test(text),
      `no code in ${reader} reads config.${keyOf(name)}`,
    ).toBe(true);
  });
});
