import type { ServerResponse } from "node:http";
import type { Dispatcher } from "./dispatcher.js";
import type { Worker } from "./fleet.js";
import { type ForwardRequest, Presence, type ReplySink } from "./transport.js";

/** Proxies one request. The reply says which engine answered (`x-slime-engine`) and which weights its fence vouches for (`x-slime-weight-version`). */
export async function proxy(dispatcher: Dispatcher, request: ForwardRequest, response: ServerResponse): Promise<void> {
  const client = new Presence();
  response.once("close", () => {
    if (!response.writableFinished) client.leave();
  });
  const { sink, chosen } = responseSink(response, request.id);
  await dispatcher.handle(request, sink, chosen, client);
}

/** A sink that writes into a response. A stream that breaks ends in an error event, anything else in a broken connection, so that neither looks whole. */
function responseSink(
  response: ServerResponse,
  requestId: string,
): { readonly sink: ReplySink; readonly chosen: (worker: Worker) => void } {
  let engine = "";
  let version: number | null = null;
  let isStream = false;
  const sink: ReplySink = {
    begin(status, headers) {
      if (response.destroyed) return;
      isStream = headers.some(
        (text, i) => i % 2 === 0 && text.toLowerCase() === "content-type" && (headers[i + 1] ?? "").startsWith("text/event-stream"),
      );
      response.writeHead(status, [
        ...headers,
        "x-slime-engine",
        engine,
        "x-request-id",
        requestId,
        ...(version === null ? [] : ["x-slime-weight-version", String(version)]),
      ]);
      if (isStream) response.flushHeaders();
    },
    data(chunk, resume) {
      if (response.destroyed || response.write(chunk)) return true;
      response.once("drain", resume);
      return false;
    },
    end() {
      if (!response.destroyed) response.end();
    },
    cut(reason) {
      if (response.destroyed) return;
      if (!isStream) return void response.destroy();
      response.end(
        `data: ${JSON.stringify({ error: { message: `the engine ${engine} broke off: ${reason}`, code: 502, type: "engine.unavailable" } })}\n\n`,
      );
    },
  };
  return {
    sink,
    chosen(worker) {
      engine = worker.url;
      version = worker.gate.kind === "open" ? worker.gate.version : null;
    },
  };
}
