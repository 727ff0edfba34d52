/**
 * The actor host's program: started by a daemon with the environment of the host protocol, prestarted without an identity, and
 * assigned one later. stdout and stderr are files of the daemon's.
 */
import { MessageChannel } from "node:worker_threads";
import { systemClock, systemRandom } from "@slime/core";
import { type ActorSpec, connect, hostEnvironment, serve } from "@slime/rpc";
import { hostRuntime } from "../cluster-runtime.js";
import { setCurrentRuntime } from "../current.js";
import { runtimeLimits } from "../limits.js";
import { lineLogger } from "../line-logger.js";
import { startHost } from "./actor-host.js";
import { endChildren } from "./end-children.js";
import { loadClass } from "./load-class.js";

const log = lineLogger(systemClock, (line) => process.stdout.write(line));

/** The reason is the last thing on stderr, where the daemon finds it for the death record. */
function die(kind: string, error: unknown): void {
  process.stderr.write(`${kind}: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`);
  process.exit(70);
}
process.on("uncaughtException", (error) => die("uncaught exception", error));
process.on("unhandledRejection", (error) => die("unhandled rejection", error));

const need = (name: string): string => {
  const value = process.env[name];
  if (value === undefined || value === "") {
    process.stderr.write(`an actor host is started by a daemon: ${name} is not set\n`);
    process.exit(78);
  }
  return value;
};

const host = startHost({
  identity: {
    clusterId: need(hostEnvironment.clusterId),
    nodeId: need(hostEnvironment.nodeId),
    processId: need(hostEnvironment.processId),
    nodeSocket: need(hostEnvironment.nodeSocket),
    socketDir: need(hostEnvironment.socketDir),
  },
  pid: process.pid,
  runtimeVersion: process.version,
  connect,
  serve,
  loadClass: ({ module, exportName }) => loadClass(module, exportName),
  become(spec: ActorSpec) {
    Object.assign(process.env, spec.env, {
      [hostEnvironment.jobId]: spec.jobId,
      [hostEnvironment.actorId]: spec.actorId,
      [hostEnvironment.incarnation]: String(spec.incarnation),
    });
    // Shown by ps and top; the title has the room of the command line it replaces.
    process.title = `slime: ${spec.exportName}${spec.name === "" ? "" : ` (${spec.name})`}`;
    if (spec.cwd !== null) process.chdir(spec.cwd);
  },
  runtimeFor(spec, hello) {
    const runtime = hostRuntime({ env: process.env, jobId: spec.jobId, hello, log });
    setCurrentRuntime(runtime);
    return runtime;
  },
  endChildren: () => endChildren(systemClock),
  exit: (code) => process.exit(code),
  clock: systemClock,
  random: systemRandom,
  log,
});

process.on("SIGTERM", () => void host.end("shutdown", 143, runtimeLimits.shutdownGraceMs));
process.on("SIGINT", () => void host.end("shutdown", 130, runtimeLimits.shutdownGraceMs));
// Timers of the clock do not keep a process alive; a host without a daemon must live out its grace.
new MessageChannel().port1.on("message", () => {});
