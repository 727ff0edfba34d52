import { findValue, valuePrefix } from "./json-scan.js";
import { noHint, type Policy, type RouteHint } from "./policies/policy.js";
import { split } from "./route-path.js";
import type { ForwardRequest } from "./transport.js";

/** Fields that hold a prompt, in SGLang's and OpenAI's requests. */
const promptKeys = ["input_ids", "text", "prompt", "messages"] as const;
const generationPaths: ReadonlySet<string> = new Set(["/generate", "/v1/chat/completions", "/v1/completions"]);

/** Whether the request makes tokens from a prompt: what prefill and decode engines do together. */
export function isGeneration({ method, path }: ForwardRequest): boolean {
  return method === "POST" && generationPaths.has(split(path).path);
}

/** What the policy wants to know of a request; nothing is looked at that it does not want. */
export function routeHint(
  request: ForwardRequest,
  wants: Policy["wants"],
  limits: { readonly promptScanBytesMax: number; readonly promptBytesMax: number },
): RouteHint {
  switch (wants) {
    case "nothing":
      return noHint;
    case "key":
      return { key: headerOf(request, "x-smg-routing-key"), prompt: null };
    case "prompt": {
      const { body } = request;
      const found = body === null ? null : findValue(body, promptKeys, limits.promptScanBytesMax);
      return body === null || found === null ? noHint : { key: null, prompt: valuePrefix(body, found.start, limits.promptBytesMax) };
    }
  }
}

/** The first value of a header, its name in lower case; an empty one is none. */
function headerOf({ headers }: ForwardRequest, name: string): string | null {
  for (let i = 0; i + 1 < headers.length; i += 2) {
    const candidate = headers[i] ?? "";
    if (candidate.length === name.length && candidate.toLowerCase() === name) return headers[i + 1] || null;
  }
  return null;
}
