export { answerJson, scriptedEngine, type Script, type ScriptedEngine, type SeenRequest } from "./scripted-engine.js";
