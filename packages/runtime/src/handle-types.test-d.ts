import { expectTypeOf } from "vitest";
import {
  type ActorHandle,
  actor,
  actorType,
  defineActors,
  gang,
  get,
  type NotCallable,
  ObjectRef,
  placementGroup,
  put,
  pythonActor,
} from "./index.js";

// Types only: checked by tsc over the tests, never run.
class Engine {
  readonly field = 1;
  private secret = 2;
  // biome-ignore lint/complexity/noUselessConstructor: its parameters are what is tested
  constructor(_model: string, _columns: Float32Array, _seed?: number) {}
  generate(prompt: string, n = 1): Promise<readonly string[]> {
    return Promise.resolve([prompt + this.secret + n]);
  }
  size(): number {
    return this.field + this.hidden();
  }
  weights(): { readonly name: string; readonly data: Float32Array }[] {
    return [];
  }
  peers(others: readonly ActorHandle<Engine>[], refs: { readonly columns: ObjectRef<Float32Array> }): void {
    void others;
    void refs;
  }
  withCallback(_done: (n: number) => void): void {}
  withMap(): Map<string, number> {
    return new Map();
  }
  nested(_options: { readonly inner: { readonly callback: () => void } }): void {}
  any(value: unknown): unknown {
    return value;
  }
  _internal(): number {
    return 1;
  }
  private hidden(): number {
    return this.secret;
  }
  onShutdown(): void {}
}
defineActors(import.meta.url, { Engine });

const engine = actor(Engine, { args: ["tiny", new Float32Array(1)] });

// Sync and async methods alike: a promise, a reference, or nothing.
expectTypeOf(engine.size()).toEqualTypeOf<Promise<number>>();
expectTypeOf(engine.size.remote()).toEqualTypeOf<ObjectRef<number>>();
expectTypeOf(engine.size.send()).toEqualTypeOf<void>();
expectTypeOf(engine.generate("a")).toEqualTypeOf<Promise<readonly string[]>>();
expectTypeOf(engine.generate.options({ timeoutMs: 1, retries: 2, concurrencyGroup: "io" }).remote("a", 2)).toEqualTypeOf<
  ObjectRef<readonly string[]>
>();
expectTypeOf(get(engine.size.remote())).toEqualTypeOf<Promise<number>>();
expectTypeOf(get([engine.size.remote(), engine.generate.remote("a")])).toEqualTypeOf<Promise<[number, readonly string[]]>>();
expectTypeOf(engine.any(1)).toEqualTypeOf<Promise<unknown>>();

// References go where values go; refs and handles in containers are themselves.
engine.generate(engine.any.remote("x") as ObjectRef<string>, engine.size.remote());
engine.peers([engine], { columns: new ObjectRef<Float32Array>("obj_0", { kind: "value", value: null }) });
// @ts-expect-error a reference to another type
engine.generate(engine.size.remote());
// @ts-expect-error a wrong value
engine.generate(1);

// What cannot cross a wire cannot be called.
expectTypeOf(engine.withCallback).toExtend<NotCallable<string>>();
expectTypeOf(engine.withMap).toExtend<NotCallable<string>>();
expectTypeOf(engine.nested).toExtend<NotCallable<string>>();
// @ts-expect-error not callable
engine.withCallback(() => {});

// Private methods, _names, fields and hooks are absent; so is what would make a handle a promise.
// @ts-expect-error private
engine.hidden();
// @ts-expect-error private by convention
engine._internal();
// @ts-expect-error a field
engine.field;
// @ts-expect-error a hook
engine.onShutdown();
expectTypeOf(engine).not.toExtend<PromiseLike<unknown>>();
expectTypeOf(engine.size.remote()).not.toExtend<PromiseLike<unknown>>();

// Constructor arguments are the class's, references allowed; left out only where none is needed.
actor(Engine, { args: ["tiny", new ObjectRef<Float32Array>("obj_0", { kind: "value", value: null }), 7] });
// @ts-expect-error args are needed
actor(Engine);
// @ts-expect-error args are needed
actor(Engine, { resources: { CPU: 1 } });
// @ts-expect-error wrong type
actor(Engine, { args: [1, new Float32Array(1)] });
// @ts-expect-error no such option
actor(Engine, { args: ["tiny", new Float32Array(1)], num_cpus: 1 });

// A class named without loading it.
const remote = actorType<typeof Engine>({ module: new URL("./engine.js", import.meta.url), export: "Engine" });
expectTypeOf(actor(remote, { args: ["tiny", new Float32Array(1)] })).toEqualTypeOf<ActorHandle<Engine>>();

interface Reward {
  score(text: string): number;
}
const reward = pythonActor<Reward, [threshold: number]>({ module: "reward.py", className: "Reward" });
expectTypeOf(actor(reward, { args: [0.5] }).score("x")).toEqualTypeOf<Promise<number>>();
// @ts-expect-error args are needed
actor(reward);
expectTypeOf(actor(pythonActor<Reward>({ module: "reward.py", className: "Reward" })).score("x")).toEqualTypeOf<Promise<number>>();

// Gangs: results by rank, arguments the same or by rank.
const trainers = gang(Engine, {
  placementGroup: placementGroup({ bundles: [{ GPU: 1 }] }),
  argsOf: (rank) => ["tiny", new Float32Array(rank)],
});
expectTypeOf(trainers.all.size()).toEqualTypeOf<Promise<readonly number[]>>();
expectTypeOf(trainers.all.generate.options({ opId: "op_1" }).each((rank) => [String(rank)])).toEqualTypeOf<
  Promise<readonly (readonly string[])[]>
>();
expectTypeOf(trainers.ranks).toEqualTypeOf<readonly ActorHandle<Engine>[]>();
// @ts-expect-error a wrong value
trainers.all.generate(1);

// put refuses references.
expectTypeOf(put(new Float32Array(1))).toEqualTypeOf<Promise<ObjectRef<Float32Array<ArrayBuffer>>>>();
// @ts-expect-error a reference is passed on as it is
put(engine.size.remote());
