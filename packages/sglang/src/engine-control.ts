import { type Clock, type Logger, SlimeError } from "@slime/core";
import { HttpClient, type HttpReply, refusalText } from "@slime/router";
import {
  admit,
  type CallEnd,
  type ControlCall,
  describeState,
  type EngineCall,
  type EngineState,
  endState,
  finish,
  type StateFacts,
  startState,
} from "./engine-state.js";

/** How a control call ended, and what it brought. */
export interface ControlResult<T> {
  readonly end: CallEnd;
  readonly value: T;
}

/** A failure of which it is known how it left the engine. */
export class ControlFailure extends Error {
  override readonly name = "ControlFailure";
  readonly end: CallEnd;
  readonly error: unknown;

  constructor(end: CallEnd, error: unknown) {
    super("a control call failed", { cause: error });
    this.end = end;
    this.error = error;
  }
}

/**
 * The one way to a server for calls that change it: each passes the state machine first and tells it how it ended.
 * An answer that did not come ends the engine (S11); its owner restarts it.
 */
export class EngineControl {
  readonly url: string;
  readonly #http: HttpClient;
  readonly #facts: StateFacts;
  readonly #log: Logger;
  #state: EngineState = startState;

  constructor(url: string, facts: StateFacts, clock: Clock, log: Logger) {
    this.url = url;
    this.#http = new HttpClient(url, clock);
    this.#facts = facts;
    this.#log = log;
  }

  get state(): EngineState {
    return this.#state;
  }

  /** Its process has ended, as its owner knows. */
  end(reason: string): void {
    if (this.#state.kind === "live") this.#state = endState(reason);
  }

  /** @throws `engine.state` where the state forbids the call, saying what has to come first; `engine.unavailable` after the end. */
  check(call: EngineCall): void {
    this.#admitted(call);
  }

  /**
   * Admits a call, runs it, and records how it ended. A thrown `ControlFailure` says so itself; any other failure leaves the engine unchanged.
   * @throws as `check`, or what `work` failed with.
   */
  async run<T>(call: ControlCall, work: () => Promise<ControlResult<T>>): Promise<T> {
    this.#state = this.#admitted(call);
    let end: CallEnd = "unchanged";
    try {
      const result = await work();
      end = result.end;
      return result.value;
    } catch (error) {
      if (!(error instanceof ControlFailure)) throw error;
      end = error.end;
      throw error.error;
    } finally {
      this.#state = finish(this.#state, end, this.#facts);
      if (end === "lost") this.#log.warn("engine.lost", { url: this.url, call: call.kind });
    }
  }

  /** One POST that is the whole of a control call. @throws `engine.refused` when the server says no. */
  post(call: ControlCall, path: string, json: unknown, timeoutMs: number): Promise<HttpReply> {
    return this.run(call, async () => ({ end: "done", value: await this.send(path, json, timeoutMs) }));
  }

  /**
   * Sends a POST within a control call. @throws `ControlFailure`: `unchanged` with `engine.refused` for an answer that is not 2xx,
   * `lost` with `engine.unavailable` for none.
   */
  async send(path: string, json: unknown, timeoutMs: number): Promise<HttpReply> {
    let reply: HttpReply;
    try {
      reply = await this.#http.call({ method: "POST", path, json, timeoutMs });
    } catch (error) {
      throw new ControlFailure("lost", error);
    }
    if (reply.status >= 200 && reply.status < 300) return reply;
    const reason = refusalText(reply.body);
    throw new ControlFailure(
      "unchanged",
      new SlimeError("engine.refused", `${this.url}${path} answered ${reply.status}: ${reason}`, {
        engine: this.url,
        status: reply.status,
        reason,
      }),
    );
  }

  /** A GET that changes nothing, as it was answered. @throws `engine.unavailable`. */
  get(path: string, timeoutMs: number): Promise<HttpReply> {
    return this.#http.call({ method: "GET", path, timeoutMs });
  }

  close(): Promise<void> {
    return this.#http.close();
  }

  #admitted(call: EngineCall): EngineState {
    const admission = admit(this.#state, call);
    if (admission.kind === "admitted") return admission.state;
    const now = describeState(this.#state);
    if (this.#state.kind === "ended")
      throw new SlimeError("engine.unavailable", `${this.url} has ended: ${this.#state.reason}; restart it`, {
        engine: this.url,
        reason: this.#state.reason,
      });
    throw new SlimeError("engine.state", `${call.kind} is not sent to ${this.url}, which is ${now}: it wants ${admission.wanted}`, {
      engine: this.url,
      state: now,
      wanted: admission.wanted,
    });
  }
}
