import { GROUP_BYTES } from '#shared/blocks/hash-tree.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import type { LeafScratch } from '../../tree/pending-tree.ts'
import type { ReplicaFiles } from '../files.ts'

/**
 * Leaves of a delta that is being received, past what is kept in memory: group by group at its own place, so that the file is
 * as sparse as the delta. It is never synced and outlives nothing: what is received is in the journal, from which another
 * attempt makes it anew.
 */
export class LeafFile implements LeafScratch {
  readonly #path: string
  readonly #files: ReplicaFiles
  #file: BlockFile | undefined

  constructor(path: string, files: ReplicaFiles) {
    this.#path = path
    this.#files = files
  }

  put(groupIndex: number, leaves: Buffer): void {
    this.#file ??= this.#files.open(this.#path, 'create')
    this.#file.write([leaves], groupIndex * GROUP_BYTES)
  }

  get(groupIndex: number): Buffer {
    const leaves = Buffer.alloc(GROUP_BYTES)
    this.#file?.read(leaves, groupIndex * GROUP_BYTES)
    return leaves
  }

  close(): void {
    if (!this.#file) return
    this.#file.close()
    this.#file = undefined
    this.#files.remove(this.#path)
  }
}
