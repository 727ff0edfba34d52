import type { Head } from "@slime/head";
import type { SimulatedCluster } from "./cluster.js";

/** What the head knows and what the machines run, a line each. */
export function describeCluster(cluster: SimulatedCluster): readonly string[] {
  const { head } = cluster.head;
  const known = head === null ? ["there is no head"] : describeHead(head, cluster);
  const machines = [...cluster.machines.values()].map((machine) => {
    const runs = machine
      .processes()
      .map((process) =>
        process.actor !== null
          ? `${process.actor.spec?.name}#${process.actor.incarnation}`
          : process.job !== null
            ? `the driver of ${process.job.spec?.submissionId}`
            : "a host of nobody",
      );
    const holds = [...(machine.daemon?.state.bundles ?? [])].map(
      ([id, held]) => `${id} generation ${held.generation}, ${held.committed ? "committed" : "prepared"}`,
    );
    return `${machine.name} runs ${runs.sort().join(", ") || "nothing"}${holds.length === 0 ? "" : `; holds ${holds.join(", ")}`}${machine.daemon === null ? "; no daemon" : ""}`;
  });
  return [...known, ...machines].map((line) => cluster.names.shown(line));
}

function describeHead({ state }: Head, { names }: SimulatedCluster): readonly string[] {
  const nodes = [...state.nodes.values()].map((node) => `node ${node.nodeId} ${node.state}${node.reason === "" ? "" : `: ${node.reason}`}`);
  const jobs = [...state.jobs.values()].map(
    (job) => `job ${job.jobId} ${job.state}${job.nodeId === null ? "" : ` on ${job.nodeId}, attempt ${job.attempt}`}: ${job.message}`,
  );
  const groups = [...state.groups.values()].map(
    (group) =>
      `group ${group.placementGroupId} ${group.state} generation ${group.generation}: ${group.plan.map((bundle) => `${bundle.index} on ${bundle.nodeId} GPU ${bundle.gpuIndices.join(",")}`).join("; ") || "no place"}`,
  );
  const actors = [...state.actors.values()].map((actor) => {
    const place =
      actor.place === null
        ? ""
        : ` on ${actor.place.nodeId}${actor.place.gpuIndices.length === 0 ? "" : ` GPU ${actor.place.gpuIndices.join(",")}`}`;
    const death = actor.state === "DEAD" ? `: ${actor.death?.reason}: ${actor.death?.message}` : "";
    return `actor ${actor.actorId} ${actor.state} #${actor.incarnation}${place}${death}`;
  });
  return [...nodes, ...jobs, ...groups, ...actors].map((line) => names.shown(line)).sort();
}

/** What an actor, a group or a job waits for, as a user is told. */
export function describeWaiting({ head, names }: SimulatedCluster, name: string): readonly string[] {
  const id = names.idOf(name);
  const state = head.head?.state;
  const job = state?.jobs.get(id);
  const reasons = job !== undefined ? [job.message] : (state?.actors.get(id)?.waiting ?? state?.groups.get(id)?.waiting ?? []);
  return reasons.length === 0 ? ["it waits for nothing"] : reasons.map((reason) => names.shown(reason));
}
