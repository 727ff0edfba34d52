/** Names one sealed object of a machine's store: enough to read it, and to notice that it is gone. Plain data. */
export interface ObjectDescriptor {
  readonly objectId: string;
  /** The job it belongs to; the object ends with it. */
  readonly jobId: string;
  /** Bytes of the frame that holds the value. */
  readonly bytes: number;
}
