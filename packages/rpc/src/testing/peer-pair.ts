import type { Clock } from "@slime/core";
import { openPeer } from "../peer.js";
import type { Hello, Peer, PeerOptions } from "../peer-api.js";
import { type MemoryPair, memoryPair } from "./memory-wire.js";

/** A hello good enough for tests. */
export function testHello(kind: Hello["who"]["kind"] = "driver", id = "proc_0000000000000001"): Hello {
  return { clusterId: "cluster_0000000000000001", who: { kind, id, incarnation: 1, pid: 1 } };
}

/** Two peers joined in memory: `a` connected, `b` accepted. All turns end in a microtask, so virtual time need not move for messages. */
export async function peerPair(
  clock: Clock,
  options?: { readonly a?: Partial<PeerOptions>; readonly b?: Partial<PeerOptions> },
): Promise<{ readonly a: Peer; readonly b: Peer; readonly wires: MemoryPair }> {
  const wires = memoryPair(clock);
  const common: PeerOptions = { hello: testHello(), clock, endOfTurn: queueMicrotask };
  const opening = openPeer(wires.b, { ...common, ...options?.b }, () => undefined);
  const [a, b] = await Promise.all([openPeer(wires.a, { ...common, ...options?.a }), opening]);
  return { a, b, wires };
}
