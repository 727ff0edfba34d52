/**
 * Put and get of 800 MB against memcpy, one thread, warm to warm: every segment and buffer has been used before.
 * Prints one JSON line; run on an idle machine: `node --import tsx packages/object-store/bench/objects.ts [MB]`.
 */
import { mkdtempSync, rmSync } from "node:fs";
import { join } from "node:path";
import { ObjectStore } from "@slime/object-store";
import { detectPlatform } from "@slime/platform";
import { decodeValueFrame, encodeValueFrame } from "@slime/rpc";

const megabytes = Number(process.argv[2] ?? 800);
const elements = (megabytes * 1_000_000) / 8;
const rounds = 5;
const jobId = "job_0000000000000001";

const dir = mkdtempSync(join(detectPlatform().sharedMemoryRoot, "slime-bench-"));
try {
  const store = new ObjectStore({
    dir,
    capacityBytes: megabytes * 8_000_000,
    recycleBytesMax: megabytes * 4_000_000,
    buffersBytesMax: megabytes * 2_000_000,
  });
  const value = { weights: Float64Array.from({ length: elements }, (_, i) => i) };
  const target = new Float64Array(elements).fill(1);
  const best = { memcpy: 0, put: 0, get: 0 };
  for (let round = 0; round <= rounds; round++) {
    const copyMs = timed(() => target.set(value.weights));
    let object = store.putSync(jobId, []);
    const putMs = timed(() => {
      object = store.putSync(jobId, encodeValueFrame(value));
    });
    const getMs = timed(() => {
      const stored = store.getSync(object);
      const read = decodeValueFrame(stored.bytes) as typeof value;
      if (read.weights[elements - 1] !== elements - 1) throw new Error("wrong data");
      stored[Symbol.dispose]();
    });
    store.freeJob(jobId);
    if (round === 0) continue; // warms segments and buffers
    const rate = (ms: number) => megabytes / ms;
    best.memcpy = Math.max(best.memcpy, rate(copyMs));
    best.put = Math.max(best.put, rate(putMs));
    best.get = Math.max(best.get, rate(getMs));
  }
  const percent = (part: number) => Math.round((1000 * part) / best.memcpy) / 10;
  console.log(
    JSON.stringify({
      bench: "object-store.800MB",
      megabytes,
      memcpyGBs: round2(best.memcpy),
      putGBs: round2(best.put),
      getGBs: round2(best.get),
      putPercentOfMemcpy: percent(best.put),
      getPercentOfMemcpy: percent(best.get),
      bar: 40,
    }),
  );
} finally {
  rmSync(dir, { recursive: true, force: true });
}

function timed(run: () => void): number {
  const startMs = performance.now();
  run();
  return performance.now() - startMs;
}

function round2(value: number): number {
  return Math.round(value * 100) / 100;
}
