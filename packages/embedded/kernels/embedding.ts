/** out[i] = table[ids[i]]; rows of d floats. The caller has checked the ids. */
export function gatherRows(ids: usize, table: usize, out: usize, n: i32, d: i32): void {
  const width = <usize>d << 2;
  for (let i = 0; i < n; i++) {
    memory.copy(out + <usize>i * width, table + <usize>load<i32>(ids + (<usize>i << 2)) * width, width);
  }
}

/** table[ids[i]] += rows[i], in the order of i. d is a multiple of 4. */
export function scatterAddRows(ids: usize, rows: usize, table: usize, n: i32, d: i32): void {
  const width = <usize>d << 2;
  for (let i = 0; i < n; i++) {
    const to = table + <usize>load<i32>(ids + (<usize>i << 2)) * width, from = rows + <usize>i * width;
    for (let at: usize = 0; at < width; at += 16) v128.store(to + at, f32x4.add(v128.load(to + at), v128.load(from + at)));
  }
}
