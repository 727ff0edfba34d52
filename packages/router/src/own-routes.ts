import { fanOut, fanOutPaths } from "./fan-out.js";
import { managementRoute, type OwnReply } from "./management.js";
import type { RouterParts } from "./parts.js";
import type { ForwardRequest } from "./transport.js";

/** Answers what is not for one engine: the router's own routes, and those that go to every engine. Null: proxy it. @throws `codec.refused` for a body that is not JSON where JSON is wanted. */
export function ownRoute(parts: RouterParts, request: ForwardRequest): Promise<OwnReply> | null {
  const mark = request.path.indexOf("?");
  const path = mark < 0 ? request.path : request.path.slice(0, mark);
  if (fanOutPaths.has(path)) return fanOut(parts, request);
  const query = new URLSearchParams(mark < 0 ? "" : request.path.slice(mark + 1));
  return managementRoute(parts, request.method, path, query, request.body ?? Buffer.alloc(0));
}
