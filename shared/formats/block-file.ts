/** A file read and written at offsets, synchronously: formats run in workers. Tests put a simulated disk behind it. */
export interface BlockFile {
  /** Fills `target` from `offsetBytes`; past the end of the file with zeros. */
  read(target: Buffer, offsetBytes: number): void
  /** All of it, or an error. */
  write(buffers: readonly Buffer[], offsetBytes: number): void
  /** What was written is on stable storage when it returns. */
  sync(): void
  truncate(sizeBytes: number): void
  sizeBytes(): number
  /** Gives the room back and makes the range read as zeros, where the file system can; otherwise does nothing. */
  punchHole(offsetBytes: number, lengthBytes: number): void
  close(): void
}
