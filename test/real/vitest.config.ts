import { defineConfig } from "vitest/config";

/** What `npm run test:real` runs: each file starts a real server of its own, so one file at a time. */
export default defineConfig({
  resolve: { conditions: ["source"] },
  ssr: { resolve: { conditions: ["source"] } },
  test: {
    include: ["test/real/**/*.test.ts"],
    pool: "forks",
    fileParallelism: false,
    testTimeout: 90_000,
    hookTimeout: 300_000,
  },
});
