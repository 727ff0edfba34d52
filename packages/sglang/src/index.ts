export { type ProbeOutcome, probe } from "./http-probe.js";
export {
  type ArgField,
  type ArgTable,
  argTableOf,
  routerArgFields,
  routerArgTable,
  serverArgFields,
  serverArgTable,
} from "./server-arg-fields.js";
export { distInitPorts, type ServerRequest, type ServerRole, type SpecOptions, serverSpec } from "./server-args.js";
export {
  commandLineOf,
  type ServerArgs,
  type ServerArgValue,
  type ServerCommand,
  type ServerSpec,
  serverCommand,
} from "./server-command.js";
export { type RunningServer, type StartServerParts, startServer, startSilenceMsDefault } from "./start-server.js";
export { writeModelDirectory } from "./weight-source.js";
