import { fromFailure, readFailure } from "@slime/rpc";
import type { ActorInfo, ClientDown, ClientHello, ClientUp, PlacementGroupInfo } from "@slime/rpc/control";
import type { Head } from "../head-api.js";
import { controlProtocol } from "../limits.js";

/** A client's stream in memory. */
export interface FakeClient {
  /** Everything pushed, in order. */
  readonly pushes: NonNullable<ClientDown["reply"]>[];
  readonly hello: (hello?: Partial<ClientHello>) => Promise<Extract<NonNullable<ClientDown["reply"]>, { $case: "welcome" }>["value"]>;
  /** Settles with the reply. @throws the failure it carries. */
  readonly call: (request: NonNullable<ClientUp["request"]>) => Promise<NonNullable<ClientDown["reply"]>>;
  readonly actor: (request: NonNullable<ClientUp["request"]>) => Promise<ActorInfo>;
  readonly group: (request: NonNullable<ClientUp["request"]>) => Promise<PlacementGroupInfo>;
  readonly close: () => void;
}

export function fakeClient(head: Head): FakeClient {
  const waiting = new Map<
    number,
    { readonly resolve: (reply: NonNullable<ClientDown["reply"]>) => void; readonly reject: (error: unknown) => void }
  >();
  const pushes: NonNullable<ClientDown["reply"]>[] = [];
  let ids = 0;
  const inlet = head.openClient({
    send({ id, reply }) {
      if (reply === undefined) return;
      if (id === 0) return void pushes.push(reply);
      const waiter = waiting.get(id);
      waiting.delete(id);
      if (reply.$case === "failure") waiter?.reject(fromFailure(readFailure(JSON.parse(reply.value.toString("utf8")))));
      else waiter?.resolve(reply);
    },
    close() {},
  });
  const call: FakeClient["call"] = (request) =>
    new Promise((resolve, reject) => {
      const id = ++ids;
      waiting.set(id, { resolve, reject });
      inlet.receive({ epoch: head.epoch, messages: [{ id, request }] });
    });
  const expected = async <C extends NonNullable<ClientDown["reply"]>["$case"]>(request: NonNullable<ClientUp["request"]>, kind: C) => {
    const reply = await call(request);
    if (reply.$case !== kind) throw new Error(`expected a reply of kind ${kind}, got ${reply.$case}`);
    return reply.value as Extract<NonNullable<ClientDown["reply"]>, { $case: C }>["value"];
  };
  return {
    pushes,
    hello: (hello = {}) =>
      expected(
        {
          $case: "hello",
          value: {
            protocol: controlProtocol,
            clusterId: "",
            jobId: "",
            actorId: "",
            pid: 77,
            version: "0.1.0",
            nodeId: "",
            bootId: "boot",
            ...hello,
          },
        },
        "welcome",
      ),
    call,
    actor: (request) => expected(request, "actor"),
    group: (request) => expected(request, "placementGroup"),
    close: () => inlet.closed(),
  };
}
