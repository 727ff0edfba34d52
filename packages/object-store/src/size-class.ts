/** The smallest segment; values below 100 KiB travel inline, so smaller classes would hardly be used. */
const classBytesMin = 64 * 1024;

/**
 * Rounds up to a size that later objects are likely to want again: four steps between powers of two, so at most a fifth of
 * a segment is waste.
 */
export function sizeClass(bytes: number): number {
  if (bytes <= classBytesMin) return classBytesMin;
  const step = 2 ** (Math.floor(Math.log2(bytes - 1)) - 2);
  return Math.ceil(bytes / step) * step;
}
