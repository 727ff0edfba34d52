import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { runScenario } from "@slime/testkit";
import { describe, expect, test } from "vitest";

/** `SCENARIO_UPDATE=1 npx vitest run test/scenarios` writes the outcomes that came; the difference is then judged like code. */
const update = process.env["SCENARIO_UPDATE"] === "1";
const folder = fileURLToPath(new URL(".", import.meta.url));
const files = readdirSync(folder)
  .filter((name) => name.endsWith(".txt"))
  .sort();

describe("scenarios", () => {
  test.each(files)("%s", async (file) => {
    const path = `${folder}${file}`;
    const text = readFileSync(path, "utf8");
    const came = await runScenario(text);
    if (update) writeFileSync(path, came);
    else expect(came).toBe(text);
  });
});
