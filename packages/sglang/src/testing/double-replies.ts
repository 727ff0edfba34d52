import type { ServerResponse } from "node:http";

export interface DoubleCall {
  readonly query: URLSearchParams;
  readonly text: string;
  readonly response: ServerResponse;
}

export type Json = Readonly<Record<string, unknown>>;

export function sendJson(response: ServerResponse, status: number, value: unknown): void {
  if (!response.destroyed) response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

export function sendText(response: ServerResponse, status: number, text: string): void {
  if (!response.destroyed) response.writeHead(status, { "content-type": "text/plain; charset=utf-8" }).end(text);
}

/** As FastAPI refuses a body that does not fit. */
export function sendInvalid(response: ServerResponse, message: string): void {
  sendJson(response, 400, { object: "error", message: `1 validation error: ${message}`, type: "Bad Request", param: null, code: 400 });
}

/** A body's object; null: it is none. */
export function objectOf(text: string): Json | null {
  try {
    const value: unknown = JSON.parse(text === "" ? "{}" : text);
    return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : null;
  } catch {
    return null;
  }
}
