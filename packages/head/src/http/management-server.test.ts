import { createHash } from "node:crypto";
import { appendFile, mkdtemp, rm, writeFile } from "node:fs/promises";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { seededRandom, silentLogger, systemClock } from "@slime/core";
import { keptEvents } from "@slime/telemetry/testing";
import type { FastifyInstance } from "fastify";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { WebSocket } from "ws";
import { openHead } from "../head.js";
import type { Head } from "../head-api.js";
import { packageStore } from "../packages/package-store.js";
import { memoryStore } from "../store/memory-store.js";
import { type FakeDaemon, fakeDaemon } from "../testing/index.js";
import { zipOf } from "../testing/zip.js";
import { wholeCharacters } from "./log-stream.js";
import { managementApp } from "./management-server.js";
import { headRegistry } from "./metrics.js";
import type { JobJson } from "./state-shapes.js";

let directory = "";
let head: Head;
let app: FastifyInstance;
let daemon: FakeDaemon;
const host = "127.0.0.1:8265";

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), "slime-http-"));
  const random = seededRandom(2);
  head = await openHead({ store: memoryStore(), clock: systemClock, random, log: silentLogger, events: keptEvents().sink });
  head.announce({ address: "127.0.0.1:6380", httpAddress: host, eventsEndpoint: "" });
  app = managementApp(head, {
    host: "127.0.0.1",
    port: 0,
    clock: systemClock,
    random,
    version: "0.1.0",
    packages: packageStore(directory),
    registry: headRegistry(),
  });
  daemon = fakeDaemon({ nodeId: "node_0000000000000001", clock: systemClock });
  daemon.connect(head);
});
afterEach(async () => {
  daemon.disconnect();
  await app.close();
  await head.close();
  await rm(directory, { recursive: true, force: true });
});

const call = (method: "GET" | "POST" | "PUT" | "DELETE", url: string, payload?: object | Buffer, headers: Record<string, string> = {}) =>
  app.inject({ method, url, headers: { host, ...headers }, ...(payload === undefined ? {} : { payload }) });
const submit = async (body: object) => {
  const reply = await call("POST", "/api/jobs/", body);
  expect(reply.statusCode, reply.body).toBe(200);
  return reply.json<{ job_id: string; submission_id: string }>();
};
/** The daemon is told in the turn after the commit. */
const running = async (jobId: string) => {
  while (head.state.jobs.get(jobId)?.state !== "RUNNING") await new Promise((resolve) => setImmediate(resolve));
};

describe("jobs", () => {
  test("submitted, listed, shown, logged, stopped, deleted: Ray's shapes", async () => {
    expect((await call("GET", "/api/version")).json()).toMatchObject({ version: "4", slime_version: "0.1.0" });
    const { job_id, submission_id } = await submit({
      entrypoint: "echo hi",
      submission_id: "a-1",
      runtime_env: { env_vars: { A: "b" }, working_dir: null, _ray_release: "x" },
      metadata: { k: "v" },
      entrypoint_num_cpus: 1,
      entrypoint_num_gpus: null,
    });
    expect(submission_id).toBe("a-1");
    await running(job_id);
    const spec = daemon.jobs.get(job_id)?.spec;
    expect(spec?.env).toEqual({ PYTHONUNBUFFERED: "1", SLIME_ADDRESS: host, A: "b" });
    expect(spec?.resources).toEqual({ CPU: 10_000 });
    expect((await call("GET", `/api/jobs/${job_id}`)).json<JobJson>()).toMatchObject({
      type: "SUBMISSION",
      status: "RUNNING",
      submission_id: "a-1",
      metadata: { k: "v" },
    });
    expect((await call("GET", "/api/jobs/a-1")).json<JobJson>().job_id).toBe(job_id);
    expect((await call("DELETE", "/api/jobs/a-1")).json()).toEqual({ deleted: false });
    expect((await call("POST", "/api/jobs/a-1/stop")).json()).toEqual({ stopped: true });
    expect((await call("POST", "/api/jobs/a-1/stop")).json()).toEqual({ stopped: false });
    expect((await call("GET", "/api/jobs/")).json<JobJson[]>().map((job) => job.status)).toEqual(["STOPPED"]);
    expect((await call("DELETE", "/api/jobs/a-1")).json()).toEqual({ deleted: true });
    const missing = await call("GET", "/api/jobs/a-1");
    expect([missing.statusCode, missing.json<{ error: { code: string } }>().error.code]).toEqual([404, "not_found"]);
  });

  test("J2: the same submission twice is one job; another one under its id is refused", async () => {
    const body = { entrypoint: "true", submission_id: "a-1", metadata: { a: "1", b: "2" } };
    const [first, second] = await Promise.all([submit(body), submit({ ...body, metadata: { b: "2", a: "1" } })]);
    expect(first).toEqual(second);
    const other = await call("POST", "/api/jobs/", { ...body, entrypoint: "false" });
    expect([other.statusCode, other.json<{ error: { code: string } }>().error.code]).toEqual([409, "conflict"]);
  });

  test("a bad submission names all its problems at once", async () => {
    const reply = await call("POST", "/api/jobs/", {
      entrypoint: "",
      submission_id: "has space",
      runtime_env: { pip: ["x"], env_vars: { "1A": "b" } },
      colour: 1,
    });
    expect(reply.statusCode).toBe(400);
    expect(reply.json<{ error: { details: { issues: string[] } } }>().error.details.issues.join("\n")).toMatch(
      /entrypoint.*\n.*submission_id.*\n.*colour/s,
    );
    const env = await call("POST", "/api/jobs/", { entrypoint: "true", runtime_env: { pip: ["x"], env_vars: { "1A": "b" } } });
    expect(env.json<{ error: { details: { issues: string[] } } }>().error.details.issues.join("\n")).toMatch(
      /runtime_env\.env_vars.*runtime_env\..*pip/s,
    );
  });

  test("logs: whole, and followed to the end from any offset, split inside characters", async () => {
    const { job_id } = await submit({ entrypoint: "true" });
    await running(job_id);
    const path = join(directory, "driver.log");
    await writeFile(path, "zero\nöne\n");
    daemon.say({ $case: "job", value: { jobId: job_id, attempt: 1, state: { $case: "running", value: { pid: 1, logPath: path } } } });
    await call("GET", `/api/jobs/${job_id}`);
    const follow = call("GET", `/api/jobs/${job_id}/logs/follow`, undefined, { "last-event-id": "5" });
    await appendFile(path, "twö\n");
    daemon.driverEnds(job_id, 0);
    const events = (await follow).body.split("\n\n").filter(Boolean);
    const data = events.map((event) => ({
      event: /event: (\w+)/.exec(event)?.[1],
      id: /id: (\d+)/.exec(event)?.[1],
      data: JSON.parse(/data: (.*)/.exec(event)?.[1] ?? "null") as { text?: string; status?: string },
    }));
    expect(
      data
        .filter((item) => item.event === "log")
        .map((item) => item.data.text)
        .join(""),
    ).toBe("öne\ntwö\n");
    expect(data.filter((item) => item.event === "log").at(-1)?.id).toBe("15");
    expect(data.at(-1)).toMatchObject({ event: "end", data: { status: "SUCCEEDED" } });
    expect((await call("GET", `/api/jobs/${job_id}/logs`)).json<{ logs: string }>().logs).toBe("zero\nöne\ntwö\n");
  });

  test("logs over a WebSocket, as `ray job submit` follows them: text to the end of the job; a foreign page and a strange job get none", async () => {
    await app.listen({ host: "127.0.0.1", port: 0 });
    const { port } = app.server.address() as AddressInfo;
    const open = (path: string, headers: Record<string, string> = {}) => {
      const texts: string[] = [];
      const socket = new WebSocket(`ws://127.0.0.1:${port}${path}`, { headers });
      socket.on("message", (data: Buffer) => texts.push(data.toString("utf8")));
      const end = new Promise<{ readonly code: number; readonly reason: string; readonly text: string }>((resolve, reject) => {
        socket.on("error", reject);
        socket.on("close", (code, reason) => resolve({ code, reason: reason.toString("utf8"), text: texts.join("") }));
      });
      return { socket, end };
    };
    const { job_id } = await submit({ entrypoint: "true" });
    await running(job_id);
    const path = join(directory, "driver.log");
    await writeFile(path, "zero\nöne\n");
    daemon.say({ $case: "job", value: { jobId: job_id, attempt: 1, state: { $case: "running", value: { pid: 1, logPath: path } } } });
    const { socket, end } = open(`/api/jobs/${job_id}/logs/tail`);
    await new Promise((resolve) => socket.once("message", resolve));
    await appendFile(path, "twö\n");
    daemon.driverEnds(job_id, 0);
    expect(await end).toEqual({ code: 1000, reason: "", text: "zero\nöne\ntwö\n" });
    expect(await open("/api/jobs/nobody/logs/tail").end).toMatchObject({ code: 1011, reason: expect.stringContaining("no job nobody") });
    await expect(open(`/api/jobs/${job_id}/logs/tail`, { origin: "http://evil.example" }).end).rejects.toThrow("403");
  });

  test("whole characters: a cut inside one is held back, damage is not", () => {
    const bytes = Buffer.from("aö€😀");
    expect([...bytes.keys()].map((end) => bytes.toString("utf8", 0, wholeCharacters(bytes.subarray(0, end + 1))))).toEqual([
      "a",
      "a",
      "aö",
      "aö",
      "aö",
      "aö€",
      "aö€",
      "aö€",
      "aö€",
      "aö€😀",
    ]);
    expect(wholeCharacters(Buffer.from([0x80, 0x80, 0x80, 0x80]))).toBe(4);
  });

  test("a package is uploaded once, checked by its name, and unpacked for each job", async () => {
    const zip = zipOf([{ name: "main.txt", content: "hello" }]);
    const name = `${createHash("sha256").update(zip).digest("hex")}.zip`;
    const body = { entrypoint: "true", runtime_env: { working_dir: `slime://${name}` } };
    expect((await call("POST", "/api/jobs/", body)).statusCode).toBe(404);
    const wrong = await call("PUT", `/api/packages/slime/${"0".repeat(64)}.zip`, zip, { "content-type": "application/octet-stream" });
    expect(wrong.json<{ error: { code: string } }>().error.code).toBe("data.invalid");
    expect((await call("PUT", `/api/packages/slime/${name}`, zip, { "content-type": "application/octet-stream" })).statusCode).toBe(200);
    expect((await call("GET", `/api/packages/slime/${name}`)).statusCode).toBe(200);
    expect((await call("PUT", "/api/packages/gcs/_ray_pkg_0123.zip", zip)).statusCode).toBe(200); // as Ray's client does it, without a type
    expect((await call("GET", "/api/packages/gcs/..%2F..%2Fetc.zip")).statusCode).toBe(400);
    const { job_id } = await submit(body);
    const cwd = head.state.jobs.get(job_id)?.spec.cwd ?? "";
    expect(cwd).toBe(join(directory, "jobs", job_id, "working_dir"));
  });
});

describe("guard", () => {
  const cases: readonly (readonly [string, Record<string, string>, number])[] = [
    ["loopback", {}, 200],
    ["localhost", { host: "localhost:8265" }, 200],
    ["IPv6 loopback", { host: "[::1]:8265" }, 200],
    ["a rebound name", { host: "evil.example:8265" }, 403],
    ["a page of another origin", { origin: "http://evil.example" }, 403],
    ["a page of another port", { origin: "http://127.0.0.1:3000" }, 403],
    ["an opaque origin", { origin: "null" }, 403],
    ["our own page", { origin: `http://${host}`, "sec-fetch-site": "same-origin" }, 200],
    ["a fetch of another site without origin", { "sec-fetch-site": "cross-site" }, 403],
  ];
  test.each(cases)("%s", async (_what, headers, status) => {
    expect((await call("GET", "/api/status", undefined, headers)).statusCode).toBe(status);
  });
  test("a form of another site cannot submit: text/plain is not read", async () => {
    const reply = await app.inject({
      method: "POST",
      url: "/api/jobs/",
      headers: { host, "content-type": "text/plain" },
      payload: '{"entrypoint":"evil"}',
    });
    expect(reply.statusCode).toBe(415);
  });
});

test("state and metrics", async () => {
  const { job_id } = await submit({ entrypoint: "true" });
  await running(job_id);
  expect((await call("GET", "/api/status")).json<{ version: number; nodes: unknown[] }>()).toMatchObject({
    version: 1,
    nodes: [{ state: "ALIVE" }],
  });
  for (const route of ["nodes", "actors", "placement_groups"])
    expect(Array.isArray((await call("GET", `/api/${route}`)).json())).toBe(true);
  const metrics = (await call("GET", "/metrics")).body;
  expect(metrics).toContain('slime_nodes{state="ALIVE"} 1');
  expect(metrics).toContain('slime_jobs{state="RUNNING"} 1');
  expect(metrics).toContain('slime_resource_total{resource="CPU"} 4');
});
