// Arithmetic shared by the kernels. Plain SIMD only: relaxed instructions round differently from machine to machine.

/**
 * eˣ on four lanes (Cephes polynomial); inputs are clamped to ±87, so the result is finite and never denormal.
 * Rounding to an integer and shifting it into the exponent go by adding 1.5·2²³, whose low bits then hold the integer: exact here,
 * and several times faster on x86 than `nearest` and a saturating conversion. `pmin`/`pmax` for the same reason, in the order of operands that lets NaN through.
 */
// @ts-ignore: decorator
@inline
export function exp4(x0: v128): v128 {
  let x = f32x4.pmax(f32x4.pmin(x0, f32x4.splat(87.0)), f32x4.splat(-87.0));
  const magic = f32x4.splat(12582912.0);
  const shifted = f32x4.add(f32x4.mul(x, f32x4.splat(1.44269504088896341)), magic);
  const n = f32x4.sub(shifted, magic);
  x = f32x4.sub(x, f32x4.mul(n, f32x4.splat(0.693359375)));
  x = f32x4.sub(x, f32x4.mul(n, f32x4.splat(-2.12194440e-4)));
  let y = f32x4.splat(1.9875691500e-4);
  y = f32x4.add(f32x4.mul(y, x), f32x4.splat(1.3981999507e-3));
  y = f32x4.add(f32x4.mul(y, x), f32x4.splat(8.3334519073e-3));
  y = f32x4.add(f32x4.mul(y, x), f32x4.splat(4.1665795894e-2));
  y = f32x4.add(f32x4.mul(y, x), f32x4.splat(1.6666665459e-1));
  y = f32x4.add(f32x4.mul(y, x), f32x4.splat(5.0000001201e-1));
  y = f32x4.add(f32x4.add(f32x4.mul(y, f32x4.mul(x, x)), x), f32x4.splat(1.0));
  const power = i32x4.add(i32x4.shl(shifted, 23), i32x4.splat(0x3f800000));
  return f32x4.mul(y, power);
}

/** eˣ where x may be −∞: such lanes give exactly 0. NaN comes through. */
// @ts-ignore: decorator
@inline
export function exp4OrZero(x: v128): v128 {
  return v128.andnot(exp4(x), f32x4.le(x, f32x4.splat(-87.0)));
}

/** Sum of the four lanes, always in the order (0 + 1) + (2 + 3). */
// @ts-ignore: decorator
@inline
export function sum4(x: v128): f32 {
  return (f32x4.extract_lane(x, 0) + f32x4.extract_lane(x, 1)) + (f32x4.extract_lane(x, 2) + f32x4.extract_lane(x, 3));
}

// @ts-ignore: decorator
@inline
export function max4(x: v128): f32 {
  return max<f32>(max<f32>(f32x4.extract_lane(x, 0), f32x4.extract_lane(x, 1)), max<f32>(f32x4.extract_lane(x, 2), f32x4.extract_lane(x, 3)));
}

/** Scalar eˣ with the very bits of `exp4`. */
// @ts-ignore: decorator
@inline
export function exp1(x: f32): f32 {
  return f32x4.extract_lane(exp4(f32x4.splat(x)), 0);
}
