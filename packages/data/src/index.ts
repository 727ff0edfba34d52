export { type DataPath, parseDataPath, sliceRange } from "./data-path.js";
export type { DataSource, DataSourceState, PromptGroup } from "./data-source.js";
export { badLinesMax, type JsonlFile, lineBytesMax, openJsonl, rowsMax } from "./jsonl-file.js";
export {
  epochOrder,
  type JsonlSourceOptions,
  loadPromptSet,
  type OpenedSource,
  openJsonlSource,
  promptSetMax,
  returnedMax,
  takeMax,
} from "./jsonl-source.js";
export { type Ledger, type LedgerRecord, ledgerFormat, openLedger, readLedger } from "./ledger.js";
export {
  commandInstancesMax,
  describeEntry,
  type LedgerCommand,
  type LedgerCounts,
  type LedgerEntry,
  type LedgerPhase,
  type LedgerSnapshot,
  type LedgerState,
} from "./ledger-state.js";
export { type LogFile, logFileBytesMax, openLogFile } from "./log-file.js";
export { loadPromptCodec, type PromptCodec, type PromptCodecOptions } from "./prompt-codec.js";
export { defaultRecordKeys, type ParsedRecord, type PromptRecord, parsePromptRecord, type RecordKeys } from "./prompt-record.js";
export { type PythonRandom, pythonRandom } from "./python-random.js";
export {
  type LogRecord,
  type OpenedLog,
  openRecordLog,
  parseRecords,
  type RecordLog,
  type RecordLogFormat,
  recordBytesMax,
} from "./record-log.js";
