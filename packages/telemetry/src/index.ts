export { decodeEvent, type EventLine, encodeEvent, eventBytesMax } from "./event-line.js";
export { type EventPublisher, type EventPublisherOptions, type EventSocket, eventPublisher } from "./event-publisher.js";
export { type EventFields, type EventName, type EventSink, eventFault, eventTable, type FieldKind } from "./event-table.js";
export { type FollowOptions, followLog, type LogChunk, type LogSource, logFollowDefaults, logSize, readLog } from "./log-follow.js";
export { type ClusterMetric, clusterMetrics, isUpstreamMetric, type MetricAxis, runMetrics } from "./metric-names.js";
export { type MetricsFile, type MetricsLine, openMetricsFile } from "./metrics-file.js";
export { type LogLevel, type PinoLoggerOptions, pinoLogger } from "./pino-logger.js";
export { type ClusterRegistry, clusterRegistry } from "./registry.js";
export { bindEventSocket, subscribeEvents } from "./zeromq-events.js";
