export { MemoryLogFile } from "./memory-log-file.js";
