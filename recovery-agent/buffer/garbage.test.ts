import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { GROUP_BYTES } from '#shared/blocks/hash-tree.ts'
import { vmId } from '#shared/ids.ts'
import { openBuffer } from './buffer.ts'

test('a tree that a synchronization begins while older garbage is deleted stays', () => {
  const dir = mkdtempSync(join(tmpdir(), 'hotsite-garbage-'))
  const buffer = openBuffer(join(dir, 'buffer.db'))
  const leaves = Buffer.alloc(GROUP_BYTES, 7)
  buffer.atomically(() => buffer.leaves.putGroup('abandoned', 0, leaves))
  const forgotten = { vmId: vmId.parse('forgotten'), epoch: 1, seq: 1 }
  for (const disk of [0, 1])
    buffer.deltas.append(forgotten, null, [
      { disk, batch: 0, blockIndexes: [0], storedBytes: [1], payload: Buffer.alloc(1) },
    ])

  const collecting = buffer.garbage.collect({ deltas: new Set(), trees: new Set() })
  expect(collecting.next().done).toBe(false)
  buffer.atomically(() => buffer.leaves.putGroup('begun', 0, leaves))
  for (const _ of collecting);

  expect(buffer.leaves.names()).toEqual(['begun'])
  expect(buffer.deltas.totalBytes()).toBe(0)
  buffer.close()
  rmSync(dir, { recursive: true, force: true })
})
