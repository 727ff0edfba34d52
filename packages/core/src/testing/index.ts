export { keptLog, type LogLine } from "./kept-log.js";
export { type VirtualClock, virtualClock } from "./virtual-clock.js";
