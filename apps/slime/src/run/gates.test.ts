import { describe, expect, it } from "vitest";
import { Gates } from "./gates.js";

function gates() {
  const said: string[] = [];
  const router = {
    url: "http://router",
    add: async () => {},
    remove: async () => {},
    fence: async (url: string) => void said.push(`fence ${url}`),
    open: async (url: string, version: number) => void said.push(`open ${url} ${version}`),
    drain: async () => {},
    stats: () => Promise.reject(new Error("not asked")),
    close: async () => {},
  };
  return { said, gates: new Gates({ router: async () => router, onFloor: (version) => said.push(`floor ${version}`) }) };
}

describe("the engines' fences", () => {
  it("F4: what may hang is held back and let go as the loop wanted it", async () => {
    const { said, gates: fence } = gates();
    await fence.hold("a");
    await fence.open("a", 1);
    await fence.hold("a");
    await fence.hold("a");
    await fence.release("a");
    await fence.release("a");
    expect(said).toEqual(["floor 1", "open a 1", "fence a", "open a 1"]);
  });

  it("F4: a push in between decides", async () => {
    const { said, gates: fence } = gates();
    await fence.open("a", 1);
    await fence.hold("a");
    await fence.close("a");
    await fence.release("a");
    await fence.open("a", 2);
    await fence.release("a");
    expect(said.filter((line) => !line.startsWith("floor"))).toEqual(["open a 1", "fence a", "fence a", "open a 2"]);
  });

  it("F5: the floor is told before the engine opens, and never falls", async () => {
    const { said, gates: fence } = gates();
    await fence.open("a", 1);
    await fence.open("b", 1);
    await fence.close("a");
    await fence.close("b");
    await fence.open("a", 2);
    await fence.open("b", 2);
    await fence.open("c", 1);
    fence.forget("c");
    await fence.open("b", 3);
    await fence.open("a", 3);
    expect(said.filter((line) => !line.startsWith("fence"))).toEqual([
      "floor 1",
      "open a 1",
      "open b 1",
      "floor 2",
      "open a 2",
      "open b 2",
      "open c 1",
      "open b 3",
      "floor 3",
      "open a 3",
    ]);
  });
});
