/** The critic's loss, per token and with its derivative. Invariant V1: `grad_T` is the derivative of `loss`. */
import { at, type Floats, sameLength } from "./floats.js";

/** The critic's loss of one micro-batch. */
export interface ValueLoss {
  readonly loss: number;
  readonly loss_T: Float64Array;
  /** d loss / d V_t. */
  readonly grad_T: Float64Array;
  /** 1 where the value moved by more than the clip. */
  readonly clipped_T: Float64Array;
}

/** max((V_clip − ret)², (V − ret)²) with V_clip = V_old + clamp(V − V_old, ±valueClip); no factor ½. */
export function valueLoss(values_T: Floats, oldValues_T: Floats, returns_T: Floats, valueClip: number, weights_T: Floats): ValueLoss {
  sameLength(values_T.length, { oldValues_T, returns_T, weights_T });
  const loss_T = new Float64Array(values_T.length);
  const grad_T = new Float64Array(values_T.length);
  const clipped_T = new Float64Array(values_T.length);
  let loss = 0;
  for (let t = 0; t < loss_T.length; t++) {
    const old = at(oldValues_T, t);
    const moved = at(values_T, t) - old;
    const outside = Math.abs(moved) > valueClip;
    const free = at(values_T, t) - at(returns_T, t);
    const bounded = old + (outside ? Math.sign(moved) * valueClip : moved) - at(returns_T, t);
    const byClip = bounded * bounded > free * free;
    loss_T[t] = byClip ? bounded * bounded : free * free;
    clipped_T[t] = outside ? 1 : 0;
    const weight = at(weights_T, t);
    if (weight === 0) continue;
    loss += weight * at(loss_T, t);
    grad_T[t] = byClip && outside ? 0 : 2 * weight * free;
  }
  return { loss, loss_T, grad_T, clipped_T };
}
