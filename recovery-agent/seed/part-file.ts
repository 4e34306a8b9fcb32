/** A part of a seed on its way into a file: `.tmp` until it is whole and on stable storage. */
import { randomBytes } from 'node:crypto'
import { closeSync, fsyncSync, openSync, renameSync, rmSync, writevSync } from 'node:fs'
import { join } from 'node:path'
import type { PackedBatch } from '#shared/blocks/batch.ts'
import { fsyncFolder } from '#shared/durable-file.ts'
import { type PartContent, PartEncoder, SALT_BYTES } from '#shared/formats/seed/part.ts'

export class PartFile implements Disposable {
  readonly file: string
  readonly #folder: string
  readonly #fd: number
  readonly #encoder: PartEncoder
  #bytes = 0
  #blocks = 0
  #isOpen = true

  constructor(
    folder: string,
    file: string,
    { seedKey, content }: { seedKey: Uint8Array; content: PartContent },
  ) {
    this.file = file
    this.#folder = folder
    this.#encoder = new PartEncoder(seedKey, randomBytes(SALT_BYTES))
    this.#fd = openSync(this.#temporary, 'w', 0o640)
    this.#write([this.#encoder.header, ...this.#encoder.content(content)])
  }

  get bytes(): number {
    return this.#bytes
  }

  get blocks(): number {
    return this.#blocks
  }

  add(batch: PackedBatch): void {
    this.#write(this.#encoder.batch(batch))
    this.#blocks += batch.blockIndexes.length
  }

  finish(endGroup: number): void {
    this.#write(this.#encoder.end({ endGroup, blocks: this.#blocks }))
    fsyncSync(this.#fd)
    closeSync(this.#fd)
    this.#isOpen = false
    renameSync(this.#temporary, join(this.#folder, this.file))
    fsyncFolder(this.#folder)
  }

  /** A part that was not finished leaves nothing behind. */
  [Symbol.dispose](): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    closeSync(this.#fd)
    rmSync(this.#temporary, { force: true })
  }

  get #temporary(): string {
    return join(this.#folder, `${this.file}.tmp`)
  }

  #write(pieces: readonly Buffer[]): void {
    let left = pieces.filter((piece) => piece.length > 0)
    while (left.length > 0) {
      let written = writevSync(this.#fd, left)
      this.#bytes += written
      left = left.flatMap((piece) => {
        const gone = Math.min(written, piece.length)
        written -= gone
        return gone === piece.length ? [] : [piece.subarray(gone)]
      })
    }
  }
}
