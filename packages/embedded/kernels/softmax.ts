import { exp4OrZero, max4, sum4 } from "./math";

/** Bytes of a row that are summed apart: a large vocabulary's small probabilities would be lost in one sum that has grown large. */
const SPAN: usize = 1024;

/**
 * Per row of logits [n, ld] (first `vocab` columns, the rest up to a multiple of 4 is overwritten with −∞):
 * logProb[i] = log softmax(logits / temperature)[target[i]], lse[i] = log Σ exp, entropy[i] = −Σ p·log p (nats).
 * ld is a multiple of 4. A negative target asks for no log-probability (0 is stored).
 */
export function logProbs(logits: usize, ld: i32, vocab: i32, inverseTemperature: f32, targets: usize, n: i32, logProb: usize, lse: usize, entropy: usize): void {
  const t4 = f32x4.splat(inverseTemperature);
  const end = <usize>((vocab + 3) & ~3) << 2;
  for (let i = 0; i < n; i++) {
    const row = logits + (<usize>(i * ld) << 2);
    for (let v = vocab; v < ((vocab + 3) & ~3); v++) store<f32>(row + (<usize>v << 2), -Infinity);
    let top = f32x4.splat(-Infinity);
    for (let at: usize = 0; at < end; at += 16) top = f32x4.pmax(top, v128.load(row + at));
    const peak: f32 = max4(top) * inverseTemperature;
    const p4 = f32x4.splat(peak);
    let total4 = f32x4.splat(0), weighted4 = f32x4.splat(0);
    for (let from: usize = 0; from < end; from += SPAN) {
      let part4 = f32x4.splat(0), weightedPart4 = f32x4.splat(0);
      for (let at = from; at < min(from + SPAN, end); at += 16) {
        const z = f32x4.sub(f32x4.mul(v128.load(row + at), t4), p4);
        const e = exp4OrZero(z);
        part4 = f32x4.add(part4, e);
        weightedPart4 = f32x4.add(weightedPart4, v128.andnot(f32x4.mul(e, z), f32x4.le(e, f32x4.splat(0))));
      }
      total4 = f32x4.add(total4, part4);
      weighted4 = f32x4.add(weighted4, weightedPart4);
    }
    const total = sum4(total4);
    const log: f32 = <f32>Math.log(<f64>total);
    const target = load<i32>(targets + (<usize>i << 2));
    const slot = <usize>i << 2;
    store<f32>(lse + slot, peak + log);
    store<f32>(entropy + slot, log - sum4(weighted4) / total);
    store<f32>(logProb + slot, target < 0 ? 0 : load<f32>(row + (<usize>target << 2)) * inverseTemperature - peak - log);
  }
}

/**
 * Backward of `logProbs`, in place: logits become their gradient, given dLogProb and dEntropy per row.
 * Columns from `vocab` to ld become 0, so that the row can enter a product whole.
 */
export function logProbsBackward(logits: usize, ld: i32, vocab: i32, inverseTemperature: f32, targets: usize, n: i32, lse: usize, entropy: usize, dLogProb: usize, dEntropy: usize): void {
  const t4 = f32x4.splat(inverseTemperature);
  const end = <usize>((vocab + 3) & ~3) << 2;
  for (let i = 0; i < n; i++) {
    const row = logits + (<usize>(i * ld) << 2), slot = <usize>i << 2;
    const l4 = f32x4.splat(load<f32>(lse + slot)), h4 = f32x4.splat(load<f32>(entropy + slot));
    const gl = load<f32>(dLogProb + slot), gl4 = f32x4.splat(gl), gh4 = f32x4.splat(load<f32>(dEntropy + slot));
    for (let at: usize = 0; at < end; at += 16) {
      const logp = f32x4.sub(f32x4.mul(v128.load(row + at), t4), l4);
      const p = exp4OrZero(logp);
      const inner = f32x4.add(gl4, f32x4.mul(gh4, f32x4.add(logp, h4)));
      v128.store(row + at, v128.andnot(f32x4.neg(f32x4.mul(t4, f32x4.mul(p, inner))), f32x4.le(p, f32x4.splat(0))));
    }
    const target = load<i32>(targets + slot);
    if (target >= 0) {
      const at = row + (<usize>target << 2);
      store<f32>(at, load<f32>(at) + gl * inverseTemperature);
    }
    for (let v = vocab; v < ld; v++) store<f32>(row + (<usize>v << 2), 0);
  }
}

/** probs[i, v] = softmax(logits[i] / temperature), for sampling; rows of probs are ld long as well. */
export function softmaxRows(logits: usize, ld: i32, vocab: i32, inverseTemperature: f32, n: i32, probs: usize): void {
  const t4 = f32x4.splat(inverseTemperature);
  const end = <usize>((vocab + 3) & ~3) << 2;
  for (let i = 0; i < n; i++) {
    const row = logits + (<usize>(i * ld) << 2), to = probs + (<usize>(i * ld) << 2);
    for (let v = vocab; v < ((vocab + 3) & ~3); v++) store<f32>(row + (<usize>v << 2), -Infinity);
    let top = f32x4.splat(-Infinity);
    for (let at: usize = 0; at < end; at += 16) top = f32x4.pmax(top, v128.load(row + at));
    const p4 = f32x4.splat(max4(top) * inverseTemperature);
    let total4 = f32x4.splat(0);
    for (let from: usize = 0; from < end; from += SPAN) {
      let part4 = f32x4.splat(0);
      for (let at = from; at < min(from + SPAN, end); at += 16) {
        const e = exp4OrZero(f32x4.sub(f32x4.mul(v128.load(row + at), t4), p4));
        part4 = f32x4.add(part4, e);
        v128.store(to + at, e);
      }
      total4 = f32x4.add(total4, part4);
    }
    const inverse = f32x4.splat(<f32>1.0 / sum4(total4));
    for (let at: usize = 0; at < end; at += 16) v128.store(to + at, f32x4.mul(v128.load(to + at), inverse));
  }
}
