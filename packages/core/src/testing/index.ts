export { keptLog, type LogLine } from "./kept-log.js";
export { virtualClock, type VirtualClock } from "./virtual-clock.js";
