import type { Arena } from "./kernels.js";

/** How a model stretches its rotary positions beyond the length it was first trained on; where it is null, not at all. */
export type RopeScaling =
  /** Every frequency divided by the factor. */
  | { readonly kind: "linear"; readonly factor: number }
  /** Llama 3.1 and later: slow rotations are divided by the factor, fast ones left alone, those between blended. */
  | {
      readonly kind: "llama3";
      readonly factor: number;
      readonly lowFrequencyFactor: number;
      readonly highFrequencyFactor: number;
      /** Positions of the first training, which say what is slow and fast. */
      readonly originalPositions: number;
    };

/** What of a model's shape its rotary positions depend on. */
export interface Rotation {
  readonly headDim: number;
  readonly ropeTheta: number;
  readonly ropeScaling: RopeScaling | null;
  readonly positionsMax: number;
}

type Json = Readonly<Record<string, unknown>>;

/** The rotation's base and scaling, from `rope_theta` and `rope_scaling` or, in newer files, both in `rope_parameters`. What is wrong is added to `problems`. */
export function parseRope(fields: Json, problems: string[]): { readonly ropeTheta: number; readonly ropeScaling: RopeScaling | null } {
  const nested = isObject(fields["rope_parameters"]) ? fields["rope_parameters"] : {};
  const old = fields["rope_scaling"] ?? null;
  if (old !== null && !isObject(old)) problems.push(`rope_scaling must be an object or null, found ${JSON.stringify(old)}`);
  const scaling = isObject(old) ? old : nested;
  const positive = (name: string, value: unknown): number => {
    if (typeof value === "number" && Number.isFinite(value) && value > 0) return value;
    problems.push(`${name} must be a positive number, found ${JSON.stringify(value)}`);
    return 1;
  };
  const ropeTheta = positive("rope_theta", fields["rope_theta"] ?? nested["rope_theta"] ?? 10_000);
  const kind = scaling["rope_type"] ?? scaling["type"] ?? "default";
  const of = (name: string) => positive(`${name} of rope_scaling`, scaling[name]);
  if (kind === "default") return { ropeTheta, ropeScaling: null };
  if (kind === "linear") return { ropeTheta, ropeScaling: { kind, factor: of("factor") } };
  if (kind === "llama3") {
    const ropeScaling: RopeScaling = {
      kind,
      factor: of("factor"),
      lowFrequencyFactor: of("low_freq_factor"),
      highFrequencyFactor: of("high_freq_factor"),
      originalPositions: of("original_max_position_embeddings"),
    };
    if (ropeScaling.highFrequencyFactor <= ropeScaling.lowFrequencyFactor)
      problems.push("high_freq_factor of rope_scaling must be larger than low_freq_factor");
    return { ropeTheta, ropeScaling };
  }
  problems.push(`rope_scaling of type ${JSON.stringify(kind)} is not supported: it must be null, "linear" or "llama3"`);
  return { ropeTheta, ropeScaling: null };
}

/** `rope_scaling` as Hugging Face writes it. */
export function ropeScalingJson(scaling: RopeScaling | null): Json | null {
  if (scaling === null) return null;
  if (scaling.kind === "linear") return { rope_type: "linear", factor: scaling.factor };
  return {
    rope_type: "llama3",
    factor: scaling.factor,
    low_freq_factor: scaling.lowFrequencyFactor,
    high_freq_factor: scaling.highFrequencyFactor,
    original_max_position_embeddings: scaling.originalPositions,
  };
}

/** Radians per position of each pair of a head's dimensions, [headDim / 2]; single precision at every step, as Hugging Face computes them. */
export function ropeFrequencies(rotation: Omit<Rotation, "positionsMax">): Float32Array {
  const { headDim, ropeTheta, ropeScaling } = rotation;
  const f = Math.fround;
  return Float32Array.from({ length: headDim / 2 }, (_, j) => {
    const plain = f(1 / f(ropeTheta ** f((2 * j) / headDim)));
    if (ropeScaling === null) return plain;
    const slow = f(plain / ropeScaling.factor);
    if (ropeScaling.kind === "linear") return slow;
    const { lowFrequencyFactor: low, highFrequencyFactor: high, originalPositions } = ropeScaling;
    const wavelength = f(f(2 * Math.PI) / plain);
    if (wavelength > originalPositions / low) return slow;
    if (wavelength < originalPositions / high) return plain;
    const share = f(f(f(originalPositions / wavelength) - low) / (high - low));
    return f(f(f(1 - share) * slow) + f(share * plain));
  });
}

/** RoPE tables of every position: cos and sin, [positions, headDim / 2]. Rounded as Hugging Face does: frequencies and angles in single precision. */
export function ropeTables(arena: Arena, rotation: Rotation): { readonly cos: number; readonly sin: number } {
  const half = rotation.headDim / 2;
  const count = rotation.positionsMax * half;
  const cos = arena.alloc(count);
  const sin = arena.alloc(count);
  const cosView = arena.f32(cos, count);
  const sinView = arena.f32(sin, count);
  ropeFrequencies(rotation).forEach((frequency, j) => {
    for (let position = 0; position < rotation.positionsMax; position++) {
      const angle = Math.fround(position * frequency);
      cosView[position * half + j] = Math.cos(angle);
      sinView[position * half + j] = Math.sin(angle);
    }
  });
  return { cos, sin };
}

function isObject(value: unknown): value is Json {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
