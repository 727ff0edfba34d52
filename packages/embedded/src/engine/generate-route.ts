import type { ServerResponse } from "node:http";
import type { Clock } from "@slime/core";
import type { EmbeddedEngine } from "./engine.js";
import type { GenerateCall } from "./generate-request.js";
import { refusal } from "./options.js";
import { replyObject } from "./reply.js";
import type { Sequence } from "./sequence.js";

/**
 * Answers a call to /generate. R1: when the client goes away before its reply, its sequences are aborted.
 * @throws `engine.refused` before anything was written.
 */
export async function answerGenerate(engine: EmbeddedEngine, clock: Clock, call: GenerateCall, response: ServerResponse): Promise<void> {
  if (call.stream) return streamReply(engine, clock, call, response);
  const sequences = await generate(engine, call, response);
  const failed = sequences.find(({ state }) => state.kind === "failed");
  if (failed?.state.kind === "failed") throw refusal(failed.state.status, failed.state.message);
  const objects = sequences.map((sequence) =>
    replyObject(sequence, { tokenizer: engine.tokenizer, clock, returnPromptTokenIds: call.returnPromptTokenIds, index: null }),
  );
  sendJson(response, 200, call.list ? objects : objects[0]);
}

/** Submits a call and waits until all its sequences have ended. */
export function generate(
  engine: EmbeddedEngine,
  call: Pick<GenerateCall, "jobs">,
  response: ServerResponse | null,
): Promise<readonly Sequence[]> {
  return new Promise((resolve, reject) => {
    let left = call.jobs.length;
    try {
      const sequences = engine.submit(call.jobs, { ended: () => --left === 0 && resolve(sequences) });
      if (response !== null) abortOnClose(engine, sequences, response);
    } catch (error) {
      reject(error);
    }
  });
}

function abortOnClose(engine: EmbeddedEngine, sequences: readonly Sequence[], response: ServerResponse): void {
  response.once("close", () => {
    if (response.writableFinished) return;
    for (const sequence of sequences)
      if (sequence.state.kind === "waiting" || sequence.state.kind === "running") engine.abort({ rid: sequence.job.rid });
  });
}

/**
 * Server-sent events, each chunk the whole reply so far, the last of each sequence with its finish reason; then [DONE].
 * Chunks come every `stream_interval` tokens and before the weights change between two tokens. A slow client gets fewer chunks, never a queue of them.
 */
function streamReply(engine: EmbeddedEngine, clock: Clock, call: GenerateCall, response: ServerResponse): Promise<void> {
  return new Promise((resolve, reject) => {
    let left = call.jobs.length;
    const numbers = new Map<string, number>(call.jobs.map(({ rid }, i) => [rid, i]));
    const begin = () => {
      if (!response.headersSent) response.writeHead(200, { "content-type": "text/event-stream", "cache-control": "no-cache" });
    };
    const send = (sequence: Sequence) => {
      begin();
      const index = call.list ? (numbers.get(sequence.job.rid) ?? null) : null;
      response.write(
        `data: ${JSON.stringify(replyObject(sequence, { tokenizer: engine.tokenizer, clock, returnPromptTokenIds: call.returnPromptTokenIds, index }))}\n\n`,
      );
    };
    const progressed = (sequence: Sequence) => {
      const due = sequence.outputIds.length % sequence.job.streamInterval === 1 || sequence.job.streamInterval === 1;
      const changed = sequence.spans.length > 1 && sequence.spans.at(-1)?.from === sequence.outputIds.length - 1;
      if ((due || changed) && !response.writableNeedDrain && !response.destroyed) send(sequence);
    };
    const ended = (sequence: Sequence) => {
      if (!response.destroyed) {
        if (sequence.state.kind === "failed") {
          begin();
          response.write(`data: ${JSON.stringify({ error: { message: sequence.state.message, code: sequence.state.status } })}\n\n`);
        } else send(sequence);
      }
      if (--left > 0) return;
      if (!response.destroyed) response.end("data: [DONE]\n\n");
      resolve();
    };
    try {
      abortOnClose(engine, engine.submit(call.jobs, { progressed, ended }), response);
    } catch (error) {
      reject(error);
    }
  });
}

/** Ends a response with JSON. */
export function sendJson(response: ServerResponse, status: number, body: unknown): void {
  const text = JSON.stringify(body);
  response.writeHead(status, { "content-type": "application/json", "content-length": Buffer.byteLength(text) });
  response.end(text);
}

/** Ends a response with plain text. */
export function sendText(response: ServerResponse, status: number, text: string): void {
  response.writeHead(status, { "content-type": "text/plain; charset=utf-8", "content-length": Buffer.byteLength(text) });
  response.end(text);
}
