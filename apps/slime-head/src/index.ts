export { HeadOptions, resolveHead } from "./head-options.js";
