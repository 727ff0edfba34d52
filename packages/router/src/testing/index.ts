export { type EngineProcess, engineProcess } from "./engine-process.js";
export { type RawEngine, rawEngine } from "./raw-engine.js";
export { answerJson, type Script, type ScriptedEngine, type SeenRequest, scriptedEngine } from "./scripted-engine.js";
