export { finiteDifference, largestError } from "./finite-difference.js";
