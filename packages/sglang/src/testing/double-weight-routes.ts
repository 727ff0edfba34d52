import type { ServerResponse } from "node:http";
import { type Json, objectOf, sendInvalid, sendJson } from "./double-replies.js";
import type { DoubleServer } from "./double-server.js";
import { type DoublePayload, directoryTensors } from "./double-weights.js";

export async function openSession(double: DoubleServer, response: ServerResponse): Promise<void> {
  await double.scheduler.exclusive(() => {
    if (double.sessionOpen) return sendJson(response, 400, { success: false, message: "a weight-update session is already open" });
    double.sessionOpen = true;
    sendJson(response, 200, { success: true, message: "Success" });
  });
}

export async function closeSession(double: DoubleServer, response: ServerResponse): Promise<void> {
  await double.scheduler.exclusive(() => {
    if (!double.sessionOpen) return sendJson(response, 400, { success: false, message: "no weight-update session is open" });
    double.sessionOpen = false;
    sendJson(response, 200, { success: true, message: "Success" });
  });
}

/** What follows every update: a flush unless told otherwise, which older servers must not fail; then the version. */
function updated(double: DoubleServer, body: Json, response: ServerResponse, more: Json = {}): void {
  if (body["flush_cache"] !== false && !double.scheduler.idle) {
    if (!double.newer) return double.die("AssertionError: Cache flush failed after updating weights");
    return sendJson(response, 400, { success: false, message: "Weights were updated, but the cache was not flushed", ...more });
  }
  rename(double, body["weight_version"]);
  sendJson(response, 200, { success: true, message: "Success", ...more });
}

function rename(double: DoubleServer, version: unknown): void {
  if (typeof version !== "string" || version === double.weightVersion) return;
  double.scheduler.versionChanged(double.weightVersion);
  double.weightVersion = version;
}

export async function updateFromDisk(double: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
  const path = String(body["model_path"]);
  const tensors = await directoryTensors(path).catch(() => null);
  await double.scheduler.exclusive(() => {
    if (tensors === null)
      return sendJson(response, 400, {
        success: false,
        message: "Failed to get weights iterator: Repo id must use alphanumeric chars",
        num_paused_requests: 0,
      });
    if (double.released.has("weights")) return double.die("Pointer argument cannot be accessed: weights are released");
    const wrong = double.weights.put(tensors);
    if (wrong !== null) return double.die(`AssertionError: Attempted to load weight ${wrong} of another shape`);
    double.modelPath = path;
    updated(double, body, response, { num_paused_requests: 0 });
  });
}

export async function updateFromTensor(double: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
  const payloads = body["serialized_named_tensors"];
  const [first] = Array.isArray(payloads) ? (payloads as readonly unknown[]) : [];
  const payload = typeof first === "string" ? objectOf(Buffer.from(first, "base64").toString("utf8")) : null;
  if (payload === null) return sendInvalid(response, "serialized_named_tensors: invalid base64");
  await double.scheduler.exclusive(() => {
    if (double.newer && !double.sessionOpen)
      return sendJson(response, 400, {
        success: false,
        message: "update_weights_from_tensor must run between begin_weight_update() and end_weight_update()",
      });
    if (double.released.has("weights")) return double.die("Pointer argument cannot be accessed: weights are released");
    const wrong = double.weights.put((payload as unknown as DoublePayload).tensors);
    if (wrong !== null) return double.die(`AssertionError: param ${wrong} has another shape`);
    updated(double, body, response);
  });
}

export async function updateFromGroup(double: DoubleServer, body: Json, response: ServerResponse): Promise<void> {
  const group = String(body["group_name"]);
  await double.scheduler.exclusive(() => {
    if (double.newer && !double.sessionOpen)
      return sendJson(response, 400, {
        success: false,
        message: "update_weights_from_distributed must run between begin_weight_update() and end_weight_update()",
      });
    if (!double.groups.has(group)) {
      if (!double.newer) return double.die(`AssertionError: Group ${group} not in []`);
      return sendJson(response, 400, { success: false, message: `Failed to receive weights: Group ${group} not in []` });
    }
    updated(double, body, response);
  });
}

export function joinGroup({ groups }: DoubleServer, body: Json, response: ServerResponse): void {
  groups.add(String(body["group_name"]));
  sendJson(response, 200, { success: true, message: "Succeeded to initialize custom process group." });
}

export function leaveGroup({ groups }: DoubleServer, body: Json, response: ServerResponse): void {
  const there = groups.delete(String(body["group_name"]));
  sendJson(response, there ? 200 : 400, { success: there, message: there ? "Succeeded" : "The group to be destroyed does not exist." });
}

export function renameVersion(double: DoubleServer, body: Json, response: ServerResponse): void {
  if (body["abort_all_requests"] !== false) double.scheduler.abort(null);
  rename(double, body["new_version"]);
  sendJson(response, 200, { success: true, message: "Weight version updated", new_version: body["new_version"] });
}
