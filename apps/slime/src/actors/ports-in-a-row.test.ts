import { describe, expect, it } from "vitest";
import { firstInARow, leasePortsInARow } from "./ports-in-a-row.js";

describe("ports in a row", () => {
  it.each([
    [[5, 6, 7], 3, 5],
    [[9, 7, 8, 3], 3, 7],
    [[1, 3, 5], 2, null],
    [[1], 2, null],
    [[4], 1, 4],
  ] as const)("of %j, %i: %s", (ports, count, first) => expect(firstInARow(ports, count)).toBe(first));

  it("are leased again where a lease has holes, and not for ever", async () => {
    const leases = [
      [10, 12],
      [20, 21],
    ];
    expect(await leasePortsInARow(async () => leases.shift() ?? [], 2)).toBe(20);
    await expect(leasePortsInARow(async () => [1, 3], 2)).rejects.toMatchObject({ code: "port.taken" });
  });
});
