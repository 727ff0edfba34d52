import { type Clock, type Random, SlimeError, silentLogger } from "@slime/core";
import { type Ask, type Head, type MemoryDisk, memoryDisk, openHead } from "@slime/head";
import type { HeadDialler } from "@slime/node/machine";
import { type ClientDown, ClientDownBatch, ClientUpBatch, type NodeDown, NodeDownBatch, NodeUpBatch } from "@slime/rpc/control";
import type { EventSink } from "@slime/telemetry";
import { type SimDisk, simDisk } from "./sim-disk.js";
import type { SimNetwork, WireEnd } from "./sim-wire.js";

export interface SimHeadOptions {
  readonly clock: Clock;
  readonly random: Random;
  readonly network: SimNetwork;
  readonly events: EventSink;
  /** After each commit, with all that is durable now. */
  readonly onDurable: (tables: MemoryDisk["tables"]) => void;
  /** A life has read its disk and listens. */
  readonly onListening: (head: Head) => void;
  readonly trace: (line: string) => void;
}

interface Life {
  readonly number: number;
  head: Head | null;
  living: boolean;
  readonly ends: Set<WireEnd>;
  readonly onDeath: Set<() => void>;
}

/** The head's machine: lives of the real head on one simulated disk, listening on the simulated network. */
export class SimHead {
  readonly disk: SimDisk;
  /** Known once a head has listened. */
  clusterId = "";
  readonly #options: SimHeadOptions;
  #life: Life | null = null;
  /** The daemons' ends of their newest streams, by machine. */
  readonly #streams = new Map<string, WireEnd>();
  #lives = 0;

  constructor(options: SimHeadOptions) {
    this.#options = options;
    this.disk = simDisk(memoryDisk(), options);
  }

  /** The head that listens; null while there is none. */
  get head(): Head | null {
    return this.#life?.head ?? null;
  }

  get living(): boolean {
    return this.#life !== null;
  }

  start(): void {
    if (this.#life !== null) return;
    const life: Life = { number: ++this.#lives, head: null, living: true, ends: new Set(), onDeath: new Set() };
    this.#life = life;
    const { clock, random, events, onListening, trace } = this.#options;
    const sink: EventSink = { publish: (name, fields) => void (life.living && events.publish(name, fields)) };
    void openHead({ store: this.disk.storeOf(() => life.living), clock, random, log: silentLogger, events: sink }).then((head) => {
      if (!life.living) return void head.close();
      life.head = head;
      this.clusterId = head.clusterId;
      head.announce({ address: "sim", httpAddress: "", eventsEndpoint: "" });
      trace(`head listens, epoch ${head.epoch}`);
      onListening(head);
    });
  }

  /** SIGKILL: commits under way are lost, connections break. */
  crash(): void {
    const life = this.#life;
    if (life === null) return;
    this.#life = null;
    life.living = false;
    void life.head?.close();
    for (const end of life.ends) end.close();
    for (const tell of life.onDeath) tell();
  }

  /** An administrator's request, as over HTTP. @throws SlimeError `head.unavailable` when there is no head, or it dies meanwhile. */
  ask(request: Ask): Promise<unknown> {
    return new Promise((resolve, reject) => {
      const { clock, network } = this.#options;
      const life = this.#life;
      const unavailable = () => reject(new SlimeError("head.unavailable", "the head is away", { address: "sim" }));
      if (life === null) return unavailable();
      life.onDeath.add(unavailable);
      clock.after(network.delayMs(), () => {
        if (!life.living || life.head === null) return unavailable();
        const back = (act: () => void) => void clock.after(network.delayMs(), act);
        life.head.ask(request).then(
          (value) => back(() => resolve(value)),
          (error: unknown) => back(() => reject(error)),
        );
      });
    });
  }

  /** Puts a batch into a daemon's ear as if the head had said it: how an older head's late words are played. */
  whisper(machine: string, batch: NodeDownBatch): void {
    this.#streams.get(machine)?.hear(NodeDownBatch.encode(batch).finish());
  }

  /** A daemon's way to the head. */
  dialler(machine: string): HeadDialler {
    return {
      ready: (timeoutMs) => this.#reachable(machine, timeoutMs),
      open: () => {
        const near = this.#accept(machine, "node");
        this.#streams.set(machine, near);
        let over = () => {};
        return {
          write: (batch) => near.send(NodeUpBatch.encode(batch).finish()),
          end: () => {
            near.close();
            this.#options.clock.after(0, () => over());
          },
          cancel: () => near.close(),
          onData: (hear) => void (near.hear = (bytes) => hear(NodeDownBatch.decode(bytes))),
          onOver: (hear) => void (near.over = hear),
          onClose: (hear) => void (over = hear),
        };
      },
      close() {},
    };
  }

  /** A client's stream: its own end of the wire. @throws SlimeError `head.unavailable`. */
  async openClient(
    hear: (batch: ClientDownBatch) => void,
    over: (reason: string) => void,
  ): Promise<{ readonly send: (batch: ClientUpBatch) => void; readonly close: () => void }> {
    await this.#reachable("client", 2_000);
    const near = this.#accept("client", "client");
    near.hear = (bytes) => hear(ClientDownBatch.decode(bytes));
    near.over = over;
    return { send: (batch) => near.send(ClientUpBatch.encode(batch).finish()), close: () => near.close() };
  }

  #reachable(machine: string, timeoutMs: number): Promise<void> {
    const { clock, network } = this.#options;
    return new Promise((resolve, reject) => {
      const refused = () => reject(new SlimeError("head.unavailable", "nobody answers", { address: "sim" }));
      if (!network.reaches(machine)) return void clock.after(timeoutMs, refused);
      clock.after(2 * network.delayMs(), () => (this.head !== null && network.reaches(machine) ? resolve() : refused()));
    });
  }

  #accept(machine: string, kind: "node" | "client"): WireEnd {
    const [near, far] = this.#options.network.connect(machine);
    const life = this.#life;
    const head = life?.head ?? null;
    if (life === null || head === null) {
      far.close();
      return near;
    }
    life.ends.add(far);
    const inlet =
      kind === "node"
        ? head.openNode(batched(far, (messages: NodeDown[]) => NodeDownBatch.encode({ epoch: head.epoch, messages }).finish()))
        : head.openClient(batched(far, (messages: ClientDown[]) => ClientDownBatch.encode({ epoch: head.epoch, messages }).finish()));
    far.hear = (bytes) => {
      if (!life.living) return;
      // Which of the two it is was decided above, together with the inlet.
      const batch = kind === "node" ? NodeUpBatch.decode(bytes) : ClientUpBatch.decode(bytes);
      inlet.receive(batch as never);
    };
    far.over = () => {
      life.ends.delete(far);
      if (life.living) inlet.closed();
    };
    return near;
  }
}

/** What is sent in one turn travels as one batch, as over gRPC. */
function batched<M>(
  end: WireEnd,
  encode: (messages: M[]) => Uint8Array,
): { readonly send: (message: M) => void; readonly close: () => void } {
  let waiting: M[] = [];
  let ended = false;
  const flush = () => {
    const messages = waiting;
    waiting = [];
    if (messages.length > 0) end.send(encode(messages));
    if (ended) end.close();
  };
  return {
    send(message) {
      if (!ended && waiting.push(message) === 1) queueMicrotask(flush);
    },
    close() {
      if (ended) return;
      ended = true;
      if (waiting.length === 0) queueMicrotask(flush);
    },
  };
}
