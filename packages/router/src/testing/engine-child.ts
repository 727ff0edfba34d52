/**
 * The program of `engineProcess`: an engine in a process of its own that can be killed and stopped. Every POST is answered after the delay
 * named in argv (ms); a body with `"stream":true` gets one event at once and the end much later. It ends with its parent.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

const delayMs = Number(process.argv[2]);
const streamMs = 100 * delayMs;
const server = createServer((request, response) => {
  const chunks: Buffer[] = [];
  request.on("data", (chunk: Buffer) => chunks.push(chunk));
  request.on("end", () => {
    if (request.method === "GET") {
      response.writeHead(200, { "content-type": "application/json" });
      response.end(request.url === "/model_info" ? '{"weight_version":"0"}' : "{}");
      return;
    }
    const isStream = Buffer.concat(chunks).includes('"stream":true');
    response.writeHead(200, { "content-type": isStream ? "text/event-stream" : "application/json" });
    if (isStream) response.write(`data: {"pid":${process.pid}}\n\n`);
    const end = isStream ? "data: [DONE]\n\n" : `{"pid":${process.pid}}`;
    setTimeout(() => response.end(end), isStream ? streamMs : delayMs);
    if (isStream) process.send?.({ kind: "streaming" });
  });
});
server.listen(0, "127.0.0.1", () => process.send?.({ kind: "listening", port: (server.address() as AddressInfo).port }));
process.on("disconnect", () => process.exit(0));
