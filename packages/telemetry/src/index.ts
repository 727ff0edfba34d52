export { decodeEvent, encodeEvent, eventBytesMax, type EventLine } from "./event-line.js";
export { eventPublisher, type EventPublisher, type EventPublisherOptions, type EventSocket } from "./event-publisher.js";
export { eventFault, eventTable, type EventFields, type EventName, type EventSink, type FieldKind } from "./event-table.js";
export { followLog, logFollowDefaults, logSize, readLog, type FollowOptions, type LogChunk, type LogSource } from "./log-follow.js";
export { clusterMetrics, isUpstreamMetric, runMetrics, type ClusterMetric, type MetricAxis } from "./metric-names.js";
export { openMetricsFile, type MetricsFile, type MetricsLine } from "./metrics-file.js";
export { pinoLogger, type LogLevel, type PinoLoggerOptions } from "./pino-logger.js";
export { clusterRegistry, type ClusterRegistry } from "./registry.js";
export { bindEventSocket, subscribeEvents } from "./zeromq-events.js";
