/** Comparison of a point with a raw disk by our own reader, for machines without qemu-img. scripts/test holds the two together. */
import { closeSync, openSync, readSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { nodeFiles } from '#recovery-agent/replica/files.ts'
import { BLOCK_BYTES, blockCountOf } from '#shared/blocks/block.ts'
import { type Layer, readChainBlock, readLayer } from '#shared/formats/qcow2/layer-reader.ts'

/** Newest layer first. */
function openChain(path: string): readonly Layer[] {
  const layer = readLayer(nodeFiles.open(path, 'read'), path)
  const backing = layer.header.backingName
  return backing === null ? [layer] : [layer, ...openChain(join(dirname(path), backing))]
}

export function compareWithRaw(layerPath: string, rawPath: string): boolean {
  const chain = openChain(layerPath)
  const raw = openSync(rawPath, 'r')
  try {
    const fromChain = Buffer.alloc(BLOCK_BYTES)
    const fromRaw = Buffer.alloc(BLOCK_BYTES)
    for (let index = 0; index < blockCountOf(chain[0]?.header.sizeBytes ?? 0); index++) {
      readChainBlock(chain, index, fromChain)
      fromRaw.fill(0, readSync(raw, fromRaw, 0, BLOCK_BYTES, index * BLOCK_BYTES))
      if (!fromChain.equals(fromRaw)) return false
    }
    return true
  } finally {
    closeSync(raw)
    for (const layer of chain) layer.file.close()
  }
}
