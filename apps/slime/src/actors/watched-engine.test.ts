import type { WeightReceipt, WeightUpdate } from "@slime/backend";
import { virtualClock } from "@slime/core/testing";
import type { EngineState, HttpServerEngineAdapter } from "@slime/sglang";
import { describe, expect, it } from "vitest";
import type { EngineNews } from "./engine-protocol.js";
import { WatchedEngine } from "./watched-engine.js";

const update: WeightUpdate = { version: 1, source: { kind: "directory", path: "/weights" } };
const live: EngineState = { kind: "live", pause: null, flushed: false, released: [], weights: "whole", groups: [], busy: null };

/** An adapter whose server does what the test says; nobody listens at its url. */
class FakeAdapter {
  readonly url = "http://127.0.0.1:9";
  state: EngineState = live;
  update: () => Promise<WeightReceipt> = async () => ({ version: "1", checksum: null });

  updateWeights(): Promise<WeightReceipt> {
    return this.update();
  }

  async pause(): Promise<void> {}

  async resume(): Promise<void> {}

  load(): Promise<never> {
    return Promise.reject(new Error("nobody listens"));
  }

  end(reason: string): void {
    this.state = { kind: "ended", reason };
  }

  async close(): Promise<void> {}
}

function watched() {
  const clock = virtualClock();
  const adapter = new FakeAdapter();
  const health: EngineNews["health"][] = [];
  const engine = new WatchedEngine({
    adapter: adapter as unknown as HttpServerEngineAdapter,
    exited: null,
    onHealth: (said) => health.push(said),
    clock,
  });
  let over: string | null = null;
  void engine.over.then((reason) => {
    over = reason;
  });
  return { clock, adapter, engine, health, over: () => over };
}

describe("a server's adapter under watch", () => {
  it("an update that hangs ends the engine, once it is known what one takes", async () => {
    const { clock, adapter, engine, over } = watched();
    await engine.pause("abort");
    await engine.updateWeights(update);
    adapter.update = () => new Promise(() => {});
    void engine.updateWeights(update);
    await clock.run(29_000);
    expect(over()).toBeNull();
    await clock.run(2_000);
    expect(over()).toBe("an update has taken 30 s");
    expect(adapter.state.kind).toBe("ended");
    await engine.close();
  });

  it("a call of which nobody knows what it did ends the engine", async () => {
    const { clock, adapter, engine, over } = watched();
    adapter.update = async () => {
      adapter.end("no answer to an update");
      throw new Error("no answer");
    };
    await expect(engine.updateWeights(update)).rejects.toThrow("no answer");
    await clock.run(1);
    expect(over()).toBe("nobody knows what it did: no answer to an update");
    await engine.close();
  });

  it("is not judged while it is paused, and is from then on", async () => {
    const { clock, engine, health, over } = watched();
    await engine.pause("retract");
    await clock.run(120_000);
    expect([health, over()]).toEqual([[], null]);
    await engine.resume();
    await expect
      .poll(
        async () => {
          await clock.run(1_000);
          return over();
        },
        { timeout: 10_000, interval: 5 },
      )
      .toMatch(/health_generate/);
    expect(health[0]?.kind).toBe("suspect");
    await engine.close();
  });
});
