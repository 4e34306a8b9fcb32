/**
 * Memory of its own that goes back at a known moment. Left to the garbage collector, that of one copy cycle would still be
 * there in the next, and its size is what makes the collector run at all.
 */
export class OwnMemory implements Disposable {
  readonly bytes: Buffer<ArrayBuffer>

  constructor(sizeBytes: number) {
    this.bytes = Buffer.allocUnsafeSlow(sizeBytes)
  }

  /** Whoever still refers to it has nothing. */
  [Symbol.dispose](): void {
    this.bytes.buffer.transfer(0)
  }
}
