/** Where a driver writes down, in the head's key-value store, the directory of its results. The head shows it with the job and forgets it with the job. */
export function jobOutputKey(jobId: string): string {
  return `job/${jobId}/output_dir`;
}
