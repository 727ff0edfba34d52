export { endDeadNode, findLocal, localNodes, type LocalNode } from "./dead-node.js";
export { controlClient } from "./head-link.js";
export type { HostCommand, HostCommandOptions, HostCommands } from "./host-commands.js";
export { checkHeadAddress, clusterAt, refuseBeyondLoopback, waitForCluster } from "./join.js";
export { nodeLimits } from "./limits.js";
export { lockPath, readNodeRecord, type NodeRecord } from "./node-directory.js";
export type { Language } from "./node-state.js";
export type { DeclaredResources } from "./resources.js";
export { startNode, type NodeOptions, type NodeOver, type NodeTools, type RunningNode } from "./start-node.js";
