import { expect, it } from 'vitest'
import { BatchBuilder } from '#shared/blocks/batch.ts'
import { storeBlock } from '#shared/blocks/stored-block.ts'
import type { DiskId } from '#shared/ids.ts'
import { limits } from '../../limits.ts'
import type { RepairWanted } from '../../replica/port.ts'
import { testVm } from '../../replica/testing/model-vm.ts'
import { repairRound } from './repair-round.ts'

const disk = 'disk-0' as DiskId

/** So many damaged blocks, of which the source has those that `has` says, each in so many layers. */
function damaged(count: number, { has, layers }: { has: (blockIndex: number) => boolean; layers: number }) {
  const left = new Set(Array.from({ length: count }, (_, i) => i))
  const asked: number[] = []
  return {
    left,
    asked,
    store: {
      repairWanted: async (_: unknown, { skip, maxBlocks }: { skip: number; maxBlocks: number }) => {
        const blockIndexes = [...left].slice(skip, skip + maxBlocks)
        const wanted: RepairWanted = {
          diskId: disk,
          blockIndexes,
          leaves: Buffer.alloc(32 * blockIndexes.length),
        }
        return blockIndexes.length > 0 ? wanted : null
      },
      repair: async ({ blockIndexes }: { blockIndexes: readonly number[] }) => {
        const healed = blockIndexes.filter((blockIndex) => left.delete(blockIndex))
        return healed.length * layers
      },
    },
    ask: async ({ blockIndexes }: RepairWanted) => {
      expect(blockIndexes.length).toBeGreaterThan(0)
      asked.push(...blockIndexes)
      const builder = new BatchBuilder()
      for (const blockIndex of blockIndexes)
        if (has(blockIndex)) builder.add(blockIndex, storeBlock(Buffer.alloc(65_536, 1), true))
      const { payload, ...batch } = builder.take()
      return { body: { vmId: testVm, epoch: 1, diskId: disk, requestId: 1, ...batch }, tail: payload }
    },
  }
}

it('a block that lies in two layers alike is healed twice, and no other is asked for again or left out', async () => {
  const { store, ask, left, asked } = damaged(40, { has: (blockIndex) => blockIndex % 3 > 0, layers: 2 })
  const round = await repairRound(testVm, { store, ask })
  expect(round).toMatchObject({ goneBlocks: 14, end: 'all-asked' })
  expect([...left]).toEqual(Array.from({ length: 14 }, (_, i) => i * 3))
  expect(new Set(asked).size).toBe(40)
})

it('says that it stopped at its limit, which is another thing than a source that is silent', async () => {
  const many = damaged(limits.repairRoundBlocks + 50, { has: () => false, layers: 1 })
  expect(await repairRound(testVm, many)).toMatchObject({ end: 'enough-asked' })
  const silent = { store: many.store, ask: async () => undefined }
  expect(await repairRound(testVm, silent)).toMatchObject({ end: 'no-answer' })
})
