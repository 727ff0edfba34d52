import { type Clock, SlimeError } from "@slime/core";
import { controlProtocol } from "@slime/head";
import { fromFailure, readFailure } from "@slime/rpc";
import type { ClientDown, ClientUp } from "@slime/rpc/control";
import type { SimHead } from "./sim-head.js";

type Reply = NonNullable<ClientDown["reply"]>;
type Request = NonNullable<ClientUp["request"]>;

/** How long a client waits for an answer, ms. */
const callMsMax = 30_000;

/** A client of one job over the simulated network; it connects anew when its stream has broken. */
export class SimClient {
  readonly #head: SimHead;
  readonly #clock: Clock;
  #jobId: string;
  #stream: Promise<{ readonly send: (batch: { epoch: number; messages: ClientUp[] }) => void; readonly close: () => void }> | null = null;
  readonly #waiting = new Map<number, { readonly resolve: (reply: Reply) => void; readonly reject: (error: unknown) => void }>();
  #ids = 0;

  /** @param jobId empty: an interactive driver, with a job of its own. */
  constructor(head: SimHead, clock: Clock, jobId: string) {
    this.#head = head;
    this.#clock = clock;
    this.#jobId = jobId;
  }

  get jobId(): string {
    return this.#jobId;
  }

  /** Settles with the reply. @throws the failure it carries, `head.unavailable` when the stream breaks, `call.deadline`. */
  async call(request: Request): Promise<Reply> {
    this.#stream ??= this.#connect();
    const stream = await this.#stream.catch((error: unknown) => {
      this.#stream = null;
      throw error;
    });
    return this.#send(stream, request);
  }

  /** Connects without asking for anything. */
  async hello(): Promise<string> {
    this.#stream ??= this.#connect();
    await this.#stream;
    return this.#jobId;
  }

  async close(): Promise<void> {
    const stream = await this.#stream?.catch(() => null);
    this.#stream = null;
    stream?.close();
  }

  async #connect(): Promise<{ readonly send: (batch: { epoch: number; messages: ClientUp[] }) => void; readonly close: () => void }> {
    const stream = await this.#head.openClient(
      (batch) => {
        for (const { id, reply } of batch.messages) if (reply !== undefined) this.#heard(id, reply);
      },
      (reason) => {
        this.#stream = null;
        const waiting = [...this.#waiting.values()];
        this.#waiting.clear();
        for (const waiter of waiting) waiter.reject(new SlimeError("head.unavailable", `the stream broke: ${reason}`, { address: "sim" }));
      },
    );
    const welcome = await this.#send(stream, {
      $case: "hello",
      value: { protocol: controlProtocol, clusterId: "", jobId: this.#jobId, actorId: "", pid: 1, version: "sim", nodeId: "", bootId: "" },
    });
    if (welcome.$case === "welcome") this.#jobId = welcome.value.jobId;
    return stream;
  }

  #send(stream: { readonly send: (batch: { epoch: number; messages: ClientUp[] }) => void }, request: Request): Promise<Reply> {
    return new Promise((resolve, reject) => {
      const id = ++this.#ids;
      const limit = this.#clock.after(callMsMax, () => {
        this.#waiting.delete(id);
        reject(new SlimeError("call.deadline", `${request.$case} was not answered`, { what: request.$case, timeoutMs: callMsMax }));
      });
      const settled =
        <V>(act: (value: V) => void) =>
        (value: V) => {
          limit.cancel();
          act(value);
        };
      this.#waiting.set(id, { resolve: settled(resolve), reject: settled(reject) });
      stream.send({ epoch: 0, messages: [{ id, request }] });
    });
  }

  #heard(id: number, reply: Reply): void {
    const waiter = this.#waiting.get(id);
    this.#waiting.delete(id);
    if (waiter === undefined) return;
    if (reply.$case === "failure") waiter.reject(fromFailure(readFailure(JSON.parse(reply.value.toString("utf8")))));
    else waiter.resolve(reply);
  }
}
