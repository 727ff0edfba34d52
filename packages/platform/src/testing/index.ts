export { type TemporaryDirectory, temporaryDirectory } from "./temporary-directory.js";
export { testedPlatforms } from "./tested-platforms.js";
export { until } from "./until.js";
