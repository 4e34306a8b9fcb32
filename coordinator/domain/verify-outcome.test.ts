import { expect, it } from 'vitest'
import type { DiskId } from '#shared/ids.ts'
import { verifyFindings } from './verify-outcome.ts'

const diskId = 'disk0' as DiskId
const read = { diskId, checkedBlocks: 500, totalBlocks: 500 }

it('a layer whose tables were wrong is told as a file, not as all of its blocks', () => {
  const target = { ...read, badBlocks: 0, healedBlocks: 0, healedLayers: 1 }
  const [finding] = verifyFindings([{ ...read, untrackedBlocks: 0 }], [target])
  expect(finding?.sentence).toBe(
    'disk0: proved equal, 100 % of blocks, just now; ' +
      'a layer file of the target had wrong tables, size or name, or was gone, and is right again',
  )
  expect(finding?.event?.severity).toBe('warning')
  const two = verifyFindings(null, [{ ...target, healedLayers: 2, healedBlocks: 1 }])
  expect(two[0]?.sentence).toContain(
    '2 layer files of the target had wrong tables, size or name, or were gone, and are right again; ' +
      '1 block had rotted at the target and was healed from the source',
  )
})
