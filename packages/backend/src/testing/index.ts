export { sampleOf } from "./samples.js";
