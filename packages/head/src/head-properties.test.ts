/** Random histories of a whole cluster on virtual time: links break, daemons hang, die with and without what they ran, the head is killed. */

import { seededRandom, silentLogger } from "@slime/core";
import { virtualClock } from "@slime/core/testing";
import { keptEvents } from "@slime/telemetry/testing";
import fc from "fast-check";
import { expect, test } from "vitest";
import { type Head, memoryDisk, memoryStore, openHead } from "./index.js";
import { holdings, shareOf } from "./reduce/cluster-view.js";
import { jobEnded, nodePresent } from "./state/records.js";
import { fakeClient, fakeDaemon, specOf } from "./testing/index.js";

const nodesMax = 3;
const step = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("create" as const),
      gpu: fc.constantFrom(0, 4_000, 4_000, 10_000, 20_000),
      restarts: fc.constantFrom(0, 2, -1),
      group: fc.constantFrom(true, true, false),
      detached: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("reserve" as const),
      gpus: fc.array(fc.constantFrom(5_000, 10_000), { minLength: 1, maxLength: 3 }),
      strategy: fc.constantFrom("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"),
    }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("remove" as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("kill" as const), which: fc.nat(), noRestart: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("dies" as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("submit" as const), attempts: fc.constantFrom(1, 2) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("driverEnds" as const), which: fc.nat(), code: fc.constantFrom(0, 1) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("stop" as const), which: fc.nat() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("disconnect" as const), node: fc.nat(nodesMax - 1) }) },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("connect" as const), node: fc.nat(nodesMax - 1) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("hang" as const), node: fc.nat(nodesMax - 1) }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("restart" as const), node: fc.nat(nodesMax - 1), keep: fc.boolean() }) },
  { weight: 2, arbitrary: fc.record({ do: fc.constant("killHead" as const) }) },
  { weight: 14, arbitrary: fc.record({ do: fc.constant("time" as const), ms: fc.constantFrom(5, 20, 50, 50, 200, 700, 6_000, 20_000) }) },
);

test("H3–H6, G1, G4, J1, J3 and no double booking hold at every step; in the end head and daemons agree", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(step, { minLength: 5, maxLength: 50, size: "max" }), async (steps) => {
      const clock = virtualClock();
      const disk = memoryDisk();
      const random = seededRandom(11);
      const open = (): Promise<Head> => openHead({ store: memoryStore(disk), clock, random, log: silentLogger, events: keptEvents().sink });
      let head = await open();
      const daemons = Array.from({ length: nodesMax }, (_, i) =>
        fakeDaemon({
          nodeId: `node_${String(i).padStart(16, "0")}`,
          clock,
          gpus: 2,
          cpus: 16,
          lagMs: () => Math.floor(random.unit() * 40),
        }),
      );
      for (const daemon of daemons) daemon.connect(head);
      await clock.run(0);
      let client = fakeClient(head);
      const { jobId } = await client.hello();
      const dead = new Map<string, string>();
      const incarnations = new Map<string, number>();
      let ids = 0;
      const nextId = (kind: string) => `${kind}_${String(++ids).padStart(16, "0")}`;
      const pick = <T>(items: Iterable<T>, which: number): T | undefined => [...items][which % Math.max(1, [...items].length)];
      const ignore = (work: Promise<unknown>) => void work.catch(() => {});

      const check = () => {
        const held = holdings(head.state);
        for (const node of head.state.nodes.values()) {
          if (!nodePresent(node)) {
            expect(held.filter((holding) => holding.nodeId === node.nodeId)).toEqual([]);
            continue;
          }
          const here = held.filter((holding) => holding.nodeId === node.nodeId);
          for (const gpu of node.gpus)
            expect(here.reduce((sum, holding) => sum + shareOf(holding, gpu.index), 0)).toBeLessThanOrEqual(10_000);
          for (const [name, total] of Object.entries(node.resources))
            expect(here.reduce((sum, holding) => sum + (holding.resources[name] ?? 0), 0)).toBeLessThanOrEqual(total);
        }
        for (const actor of head.state.actors.values()) {
          const known = dead.get(actor.actorId);
          if (known !== undefined) expect(JSON.stringify(actor)).toBe(known); // H6
          if (actor.state === "DEAD") dead.set(actor.actorId, JSON.stringify(actor));
          expect(actor.incarnation).toBeGreaterThanOrEqual(incarnations.get(actor.actorId) ?? 0);
          incarnations.set(actor.actorId, actor.incarnation);
          if (actor.state === "ALIVE") expect(actor.place).not.toBeNull();
          const group = head.state.groups.get(actor.spec.placementGroupId);
          if (actor.place !== null && actor.place.bundle !== null)
            expect(group?.plan.some((bundle) => bundle.index === actor.place?.bundle && bundle.nodeId === actor.place.nodeId)).toBe(true); // G4
        }
        for (const job of head.state.jobs.values()) {
          if (!jobEnded(job)) continue;
          expect(job.nodeId).toBeNull();
          for (const actor of head.state.actors.where("job", job.jobId))
            if (actor.spec.lifetime !== "detached") expect(actor.state).toBe("DEAD"); // J1
          for (const group of head.state.groups.where("job", job.jobId)) expect(group.plan).toEqual([]);
        }
      };

      for (const action of steps) {
        switch (action.do) {
          case "create": {
            const group = action.group ? pick(head.state.groups.values(), ids) : undefined;
            const owner =
              pick([jobId, ...[...head.state.jobs.values()].filter((job) => !jobEnded(job)).map((job) => job.jobId)], ids) ?? jobId;
            ignore(
              client.call({
                $case: "createActor",
                value: {
                  spec: specOf({
                    actorId: nextId("actor"),
                    jobId: group?.jobId ?? owner,
                    resources: action.gpu === 0 ? { CPU: 10_000 } : { GPU: action.gpu },
                    restartsMax: action.restarts,
                    placementGroupId: group?.placementGroupId ?? "",
                    lifetime: action.detached ? "detached" : "job",
                  }),
                },
              }),
            );
            break;
          }
          case "reserve":
            ignore(
              client.call({
                $case: "createPlacementGroup",
                value: {
                  placementGroupId: nextId("pg"),
                  jobId: pick(head.state.jobs.values(), ids)?.jobId ?? jobId,
                  strategy: action.strategy,
                  name: "",
                  bundles: action.gpus.map((GPU) => ({ resources: { GPU } })),
                },
              }),
            );
            break;
          case "remove": {
            const group = pick(head.state.groups.values(), action.which);
            if (group !== undefined)
              ignore(client.call({ $case: "removePlacementGroup", value: { placementGroupId: group.placementGroupId } }));
            break;
          }
          case "kill": {
            const actor = pick(head.state.actors.values(), action.which);
            if (actor !== undefined)
              ignore(client.call({ $case: "killActor", value: { actorId: actor.actorId, graceMs: 10, noRestart: action.noRestart } }));
            break;
          }
          case "dies": {
            const daemon = daemons[action.which % nodesMax];
            const actorId = pick(daemon?.actors.keys() ?? [], action.which);
            if (actorId !== undefined) daemon?.die(actorId);
            break;
          }
          case "submit": {
            const id = nextId("job");
            ignore(
              head.ask({
                kind: "job.submit",
                job: {
                  spec: {
                    jobId: id,
                    submissionId: id,
                    entrypoint: "x",
                    env: {},
                    cwd: "",
                    metadata: {},
                    resources: { CPU: 10_000 },
                    attemptsMax: action.attempts,
                  },
                  requestHash: "",
                  runtimeEnv: {},
                },
              }),
            );
            break;
          }
          case "driverEnds": {
            const daemon = daemons[action.which % nodesMax];
            const job = pick(daemon?.jobs.keys() ?? [], action.which);
            if (job !== undefined) daemon?.driverEnds(job, action.code);
            break;
          }
          case "stop": {
            const job = pick(
              [...head.state.jobs.values()].filter((record) => record.jobId !== jobId),
              action.which,
            );
            if (job !== undefined) ignore(head.ask({ kind: "job.stop", jobId: job.jobId, graceMs: 10, waitMs: 1_000, reason: "stopped" }));
            break;
          }
          case "disconnect":
            daemons[action.node]?.disconnect();
            break;
          case "connect":
            daemons[action.node]?.disconnect();
            daemons[action.node]?.connect(head);
            break;
          case "hang":
            daemons[action.node]?.hang();
            break;
          case "restart":
            daemons[action.node]?.restart(action.keep);
            break;
          case "killHead":
            await clock.run(0);
            await head.close();
            for (const daemon of daemons) daemon.disconnect();
            head = await open();
            client = fakeClient(head);
            ignore(client.hello({ jobId }));
            for (const daemon of daemons) daemon.connect(head);
            break;
          case "time":
            await clock.run(action.ms);
            break;
        }
        await clock.run(0);
        check();
      }

      // All is well again: everybody connects, and what waits for time gets it.
      for (const daemon of daemons) {
        daemon.disconnect();
        daemon.connect(head);
      }
      await clock.run(90_000);
      check();
      for (const daemon of daemons) {
        const wanted = head.state.actors.where("node", daemon.nodeId).map((actor) => `${actor.actorId} ${actor.incarnation}`);
        expect([...daemon.actors.values()].map((running) => `${running.spec?.actorId} ${running.incarnation}`).sort()).toEqual(
          [...wanted].sort(),
        );
        expect([...daemon.jobs.keys()].sort()).toEqual(
          head.state.jobs
            .where("node", daemon.nodeId)
            .map((job) => job.jobId)
            .sort(),
        );
        const reserved = head.state.groups
          .where("life", "live")
          .filter((group) => group.plan.some((bundle) => bundle.nodeId === daemon.nodeId));
        expect([...daemon.bundles.values()].map((held) => `${held.placementGroupId} ${held.generation} ${held.committed}`).sort()).toEqual(
          reserved
            .map(
              (group) =>
                `${group.placementGroupId} ${group.generation} ${group.plan.every((bundle) => bundle.nodeId !== daemon.nodeId || group.committed.includes(bundle.index))}`,
            )
            .sort(),
        );
      }
      for (const actor of head.state.actors.where("life", "live")) if (actor.place !== null) expect(actor.state).toBe("ALIVE");
      // What the head would know after its own death is what it knows now.
      const stored = await memoryStore(disk).open(() => "");
      const sorted = (records: Iterable<readonly [string, unknown]>) => JSON.stringify([...records].sort(([a], [b]) => (a < b ? -1 : 1)));
      for (const table of ["nodes", "actors", "groups", "jobs"] as const)
        expect(sorted(stored.records[table])).toBe(sorted(head.state[table].keys().map((key) => [key, head.state[table].get(key)])));
      await head.close();
    }),
    { numRuns: 30, seed: 21 },
  );
}, 60_000);
