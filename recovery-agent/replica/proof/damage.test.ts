import { expect, it } from 'vitest'
import type { DiskId } from '#shared/ids.ts'
import type { ChainPoint } from '../catalog/chain.ts'
import { type Damage, damagedSeqs, visibleDamage } from '../catalog/damage.ts'
import type { LayerKey } from '../catalog/layer-leaves.ts'
import { LeafGroup } from '../catalog/leaf-groups.ts'
import { testVm } from '../testing/model-vm.ts'

const diskId = 'disk-0' as DiskId
const GROUPS = 200

function member(seq: number, blockCount = GROUPS * 256): ChainPoint {
  return {
    epoch: 1,
    seq,
    state: 'point',
    capturedAtMs: 0,
    completedAtMs: 0,
    consistency: 'crash',
    pinned: false,
    disks: [
      { diskId, sizeBytes: blockCount * 65_536, root: Buffer.alloc(32), changedBytes: 0, storedBytes: 0 },
    ],
  }
}

/** All blocks of so many groups of layer 1. */
function lostLayer(groups: number): Damage[] {
  return Array.from({ length: groups }, (_, groupIndex) => ({
    vmId: testVm,
    diskId,
    seq: 1,
    groupIndex,
    blockIndexes: Array.from({ length: 256 }, (_unused, i) => groupIndex * 256 + i),
    what: 'lost',
  }))
}

/** Layers that have data at some blocks, counted as they are asked. */
function leavesWith(data: Readonly<Record<number, readonly number[]>>) {
  let reads = 0
  return {
    reads: () => reads,
    group({ seq }: LayerKey, groupIndex: number) {
      reads++
      const group = new LeafGroup()
      for (const block of data[seq] ?? [])
        if (Math.floor(block / 256) === groupIndex) group.setData(block % 256, Buffer.alloc(32, 1))
      return group
    },
  }
}

it('a layer that is lost whole costs a question for each group and layer at most, not for each block', () => {
  const chain = Array.from({ length: 20 }, (_, i) => member(i + 1))
  const leaves = leavesWith({})
  expect(damagedSeqs(chain, lostLayer(GROUPS), leaves)).toEqual(new Set(chain.map(({ seq }) => seq)))
  expect(leaves.reads()).toBeLessThanOrEqual(chain.length * 2)
})

it('a point sees damage until a layer says something else of the last of the blocks, or the disk is too short', () => {
  const chain = [member(1), member(2), member(3), member(4, 10), member(5)]
  const leaves = leavesWith({ 2: [5], 3: [6] })
  const [row] = lostLayer(1)
  const damage = { ...row, blockIndexes: [5, 6, 200] } as Damage
  const seen = [...visibleDamage(chain, damage, leaves)]
  expect(seen).toEqual([
    { seq: 1, blockIndexes: [5, 6, 200] },
    { seq: 2, blockIndexes: [6, 200] },
    { seq: 3, blockIndexes: [200] },
  ])
  expect(damagedSeqs(chain, [damage], leaves)).toEqual(new Set([1, 2, 3]))
})
