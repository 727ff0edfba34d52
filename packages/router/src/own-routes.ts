import { controlRoute } from "./control-routes.js";
import { managementRoute } from "./management.js";
import type { OwnReply } from "./own-reply.js";
import type { RouterParts } from "./parts.js";
import { split } from "./route-path.js";
import type { ForwardRequest } from "./transport.js";

const generate = "/generate";

/** Answers what is not for one engine: the router's own routes, and those that go to every engine. Null: proxy it. @throws `codec.refused` for a body that is not JSON where JSON is wanted. */
export function ownRoute(parts: RouterParts, request: ForwardRequest): Promise<OwnReply> | null {
  // Nearly every request is this one.
  if (request.path === generate) return null;
  const { path, search } = split(request.path);
  return controlRoute(parts, request, path) ?? managementRoute(parts, request.method, path, search, request.body ?? Buffer.alloc(0));
}
