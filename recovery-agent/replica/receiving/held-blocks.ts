/** Blocks of one disk that the layer of a union has already, for the layer of an older point that has the same. */
import { GROUP_CHILDREN, leafOf } from '#shared/blocks/hash-tree.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { CLUSTER_BYTES } from '#shared/formats/qcow2/header.ts'
import { type Layer, readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import type { LayerKey } from '../catalog/layer-leaves.ts'
import type { ReplicaContext } from '../context.ts'

type HeldContext = Pick<ReplicaContext, 'catalog' | 'clock' | 'files' | 'paths'>

export class HeldBlocks implements Disposable {
  readonly #context: HeldContext
  readonly #key: LayerKey
  readonly #path: string
  #layer: Layer | undefined

  constructor(context: HeldContext, key: LayerKey, path: string) {
    this.#context = context
    this.#key = key
    this.#path = path
  }

  /** null: it is zeros. Only what hashes to its leaf is given; otherwise it throws `layer-damaged`, recorded. */
  read(blockIndex: number): Buffer | null {
    const { catalog, clock } = this.#context
    const group = catalog.layerLeaves.group(this.#key, Math.floor(blockIndex / GROUP_CHILDREN))
    const i = blockIndex % GROUP_CHILDREN
    const state = group.state(i)
    if (state === 'zero') return null
    if (state === 'data') {
      const block = this.#read(blockIndex)
      if (block && leafOf(block).equals(group.leaf(i))) return block
      const what = 'it has another hash than when it was written'
      catalog.transaction(() => catalog.damage.addBlock(this.#key, blockIndex, { what, nowMs: clock.now() }))
    }
    throw new HotsiteError('layer-damaged', `${this.#path} does not hold block ${blockIndex} as it was`, {
      details: { ...this.#key },
    })
  }

  #read(blockIndex: number): Buffer | undefined {
    this.#layer ??= this.#open()
    const cluster = this.#layer.map.get(blockIndex)
    if (cluster <= 0) return undefined
    const block = Buffer.alloc(CLUSTER_BYTES)
    this.#layer.file.read(block, cluster * CLUSTER_BYTES)
    return block
  }

  #open(): Layer {
    const file = this.#context.files.open(this.#path, 'read')
    try {
      return readLayer(file, this.#path)
    } catch (error) {
      file.close()
      throw error
    }
  }

  [Symbol.dispose](): void {
    this.#layer?.file.close()
    this.#layer = undefined
  }
}
