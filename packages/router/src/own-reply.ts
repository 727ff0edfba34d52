/** An answer of the router's own. */
export interface OwnReply {
  readonly status: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** A string goes out as text, all else as JSON. */
  readonly body: unknown;
}

export type Json = Readonly<Record<string, unknown>>;

/** sglang_router's shape of a refusal. */
export function refusal(message: string, code: string): Json {
  return { error: message, code };
}

/** An answer that is there at once. */
export function reply(status: number, body: unknown): Promise<OwnReply> {
  return Promise.resolve({ status, body });
}
