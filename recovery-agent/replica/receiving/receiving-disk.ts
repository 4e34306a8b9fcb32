/** One disk of a delta that is being received: its part file, the journal beside it, and the tree it will have. */
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { leafOf, ZERO_HASH } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { BlockFile } from '#shared/formats/block-file.ts'
import { LayerWriter } from '#shared/formats/qcow2/layer-writer.ts'
import type { DiskId } from '#shared/ids.ts'
import type { LeafStore } from '../../tree/leaf-store.ts'
import { PendingTree } from '../../tree/leaf-store.ts'
import { type LeafGroup, leafGroupsOf } from '../catalog/leaf-groups.ts'
import type { ReplicaCrash } from '../crash-points.ts'
import type { ReplicaFiles } from '../files.ts'
import { LOST_LEAF } from '../healing/lost-blocks.ts'
import { journalSuffix, leavesSuffix, partSuffix } from '../names.ts'
import type { BlockBatch, DeltaHeader, ReplicaDisk } from '../port.ts'
import type { HeldBlocks } from './held-blocks.ts'
import { Journal, type JournalEntry } from './journal.ts'
import { LeafFile } from './leaf-file.ts'

export interface OpenReceivingDisk {
  readonly disk: ReplicaDisk
  readonly kind: DeltaHeader['kind']
  /** The sealed name; `.part` and `.journal` stand beside it until then. */
  readonly layerPath: string
  readonly tree: string
  readonly leaves: LeafStore
  readonly files: ReplicaFiles
  /** Of the tree; what is more lies in a file until the delta is sealed. */
  readonly leavesInMemoryBytes: number
  /** Damaged where they lie: a synchronization has to bring them again. */
  readonly lost: readonly number[]
  /** Of the union above; undefined: there is none, and every block has to come. */
  readonly held: HeldBlocks | undefined
}

export interface SealDisk {
  readonly backingName: string | null
  readonly hidden: { readonly fromBytes: number; readonly toBytes: number } | undefined
  readonly crash: ReplicaCrash
}

export class ReceivingDisk {
  readonly diskId: DiskId
  readonly sizeBytes: number
  readonly layerPath: string
  readonly tree: PendingTree
  readonly #file: BlockFile
  readonly #journal: Journal
  readonly #writer: LayerWriter
  readonly #leafFile: LeafFile
  readonly #held: HeldBlocks | undefined
  #nextBatch = 0
  #durableBatch = 0
  #isDirty = false

  constructor(options: OpenReceivingDisk) {
    const { disk, kind, layerPath, tree, leaves, files, lost, leavesInMemoryBytes } = options
    this.#held = options.held
    this.diskId = disk.diskId
    this.sizeBytes = disk.sizeBytes
    this.layerPath = layerPath
    this.#leafFile = new LeafFile(layerPath + leavesSuffix, files)
    this.tree = new PendingTree(leaves, tree, { scratch: this.#leafFile, maxBytes: leavesInMemoryBytes })
    for (const blockIndex of lost) this.tree.setLeaf(blockIndex, LOST_LEAF)
    const part = layerPath + partSuffix
    const journal = layerPath + journalSuffix
    // Sealed and renamed, but the point never came to be: it is a part again, and the delta arrives once more.
    if (files.exists(layerPath)) files.rename(layerPath, part)
    const resumes = files.exists(part) && files.exists(journal)
    const journalFile = files.open(journal, resumes ? 'write' : 'create')
    try {
      this.#file = files.open(part, resumes ? 'write' : 'create')
    } catch (error) {
      journalFile.close()
      throw error
    }
    this.#journal = new Journal(journalFile)
    this.#writer = new LayerWriter(this.#file)
    try {
      this.#journal.replay((batch, entries) => {
        for (const { blockIndex, state, leaf } of entries) {
          this.#writer.restore(blockIndex, state)
          this.tree.setLeaf(blockIndex, leaf)
        }
        if (kind !== 'sync') this.#nextBatch = batch + 1
      })
      this.tree.resize(disk.sizeBytes)
    } catch (error) {
      this.close()
      throw error
    }
    this.#durableBatch = this.#nextBatch
  }

  get durableBatch(): number {
    return this.#durableBatch
  }

  write({ batch, blockIndexes, blocks }: BlockBatch): void {
    if (batch < this.#nextBatch) return
    if (batch > this.#nextBatch) {
      throw new HotsiteError(
        'stream-out-of-order',
        `batch ${batch} of disk ${this.diskId} came where ${this.#nextBatch} was expected`,
        { details: { diskId: this.diskId, batch, expected: this.#nextBatch } },
      )
    }
    const whole = blocks.map((block, i) => this.#whole(block, blockIndexes[i]))
    const states = this.#writer.put(blockIndexes, whole)
    const entries: JournalEntry[] = states.map((state, i) => {
      const block = whole[i]
      return { blockIndex: blockIndexes[i] ?? 0, state, leaf: block ? leafOf(block) : ZERO_HASH }
    })
    for (const { blockIndex, leaf } of entries) this.tree.setLeaf(blockIndex, leaf)
    this.#journal.add(batch, entries)
    this.#nextBatch = batch + 1
    this.#isDirty = true
  }

  #whole(block: BlockBatch['blocks'][number], blockIndex: number | undefined): Buffer | null {
    if (block !== 'held') return this.#checked(block, blockIndex)
    if (!this.#held || blockIndex === undefined)
      throw new HotsiteError('stream-malformed', `block ${blockIndex} of disk ${this.diskId} is not here`)
    return this.#held.read(blockIndex)
  }

  /** The last block of a disk that is no multiple of 64 KiB is zeros past the end of the disk, whatever came. */
  #checked(block: Buffer | null, blockIndex: number | undefined): Buffer | null {
    if (blockIndex === undefined || blockIndex < 0 || blockIndex >= blockCountOf(this.sizeBytes)) {
      throw new HotsiteError('stream-malformed', `disk ${this.diskId} has no block ${blockIndex}`)
    }
    if (!block) return null
    if (block.length !== BLOCK_BYTES) {
      throw new HotsiteError('stream-malformed', `block ${blockIndex} has ${block.length} bytes`)
    }
    const inside = this.sizeBytes - blockIndex * BLOCK_BYTES
    if (inside >= BLOCK_BYTES) return block
    const trimmed = Buffer.alloc(BLOCK_BYTES)
    block.copy(trimmed, 0, 0, inside)
    return trimmed
  }

  get isDirty(): boolean {
    return this.#isDirty
  }

  syncData(): void {
    if (this.#isDirty) this.#file.sync()
  }

  writeJournal(): void {
    if (this.#isDirty) this.#journal.write()
  }

  syncJournal(): void {
    if (!this.#isDirty) return
    this.#journal.sync()
    this.#writer.markDurable()
    this.#durableBatch = this.#nextBatch
    this.#isDirty = false
  }

  seal({ backingName, hidden, crash }: SealDisk): void {
    if (hidden) this.#writer.hide(blockCountOf(hidden.fromBytes), blockCountOf(hidden.toBytes))
    this.#writer.seal({
      sizeBytes: this.sizeBytes,
      backingName,
      step: (step) => crash(`replica.seal-${step}`),
    })
  }

  root(): Buffer {
    return this.tree.root(this.sizeBytes)
  }

  changedBytes(): number {
    return this.#writer.changedBytes()
  }

  /** Where each block of the sealed layer is and what it hashes to. */
  leafGroups(hasBacking: boolean): Generator<readonly [groupIndex: number, group: LeafGroup], void> {
    const leaf = (blockIndex: number) => this.tree.leaf(blockIndex)
    return leafGroupsOf({ entries: this.#writer.entries(), hasBacking, leaf })
  }

  fileBytes(): number {
    return this.#file.sizeBytes()
  }

  close(): void {
    this.#leafFile.close()
    this.#held?.[Symbol.dispose]()
    this.#file.close()
    this.#journal.close()
  }
}
