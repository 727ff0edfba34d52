export { type Ledger, type LedgerRecord, ledgerFormat, openLedger, readLedger } from "./ledger.js";
export { commandInstancesMax, describeEntry, type LedgerCommand, type LedgerCounts, type LedgerEntry, type LedgerPhase, type LedgerSnapshot, type LedgerState } from "./ledger-state.js";
export { type LogFile, logFileBytesMax, openLogFile } from "./log-file.js";
export { pythonRandom, type PythonRandom } from "./python-random.js";
export { type LogRecord, type OpenedLog, openRecordLog, parseRecords, type RecordLog, type RecordLogFormat, recordBytesMax } from "./record-log.js";
