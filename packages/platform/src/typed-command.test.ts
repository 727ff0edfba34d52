import { describe, expect, it } from "vitest";
import { typedCommand } from "./typed-command.js";

describe("a command as a person can type it", () => {
  it.each([
    ["/usr/bin:/opt/slime/bin", ["/opt/slime/bin/slime"], "slime"],
    ["/clone/node_modules/.bin:/usr/bin", ["/clone/node_modules/.bin/slime"], "npx slime"],
    ["", [], "npx slime"],
  ])("PATH %s with %j: %s", (PATH, files, typed) => {
    expect(typedCommand("slime", { PATH }, (path) => files.includes(path))).toBe(typed);
  });
});
