import { describe, expect, it } from 'vitest'
import { BLOCK_BYTES } from '#shared/blocks/block.ts'
import { encodeCounter, findViolations, modelDisks, operation } from './model.ts'

function stateAfter(seed: number, n: number): Buffer[] {
  const disks = modelDisks.map(({ sizeBytes }) => Buffer.alloc(sizeBytes))
  for (let i = 1; i <= n; i++) {
    const { disk, blockIndex, content } = operation(seed, i)
    const target = disks[disk]
    if (target) content.copy(target, blockIndex * BLOCK_BYTES)
  }
  for (const disk of disks) encodeCounter(n).copy(disk)
  return disks
}

describe('the predictable guest', () => {
  it('finds nothing wrong with a state the guest was in', () => {
    expect(findViolations(7, stateAfter(7, 40))).toEqual([])
  })

  it('accepts the operation in flight, with and without its counter on disk 0', () => {
    const disks = stateAfter(7, 40)
    const next = operation(7, 41)
    const target = disks[next.disk]
    if (target) next.content.copy(target, next.blockIndex * BLOCK_BYTES)
    expect(findViolations(7, disks)).toEqual([])
    if (disks[0]) encodeCounter(41).copy(disks[0])
    expect(findViolations(7, disks)).toEqual([])
  })

  it('finds a flipped bit, a lost operation, a broken order and a torn counter', () => {
    const flipped = stateAfter(7, 40)
    flipped[1]?.writeUInt8((flipped[1].readUInt8(100_000) ^ 1) & 0xff, 100_000)
    expect(findViolations(7, flipped).length).toBe(1)

    const ahead = stateAfter(7, 40)
    for (const disk of ahead) encodeCounter(43).copy(disk)
    expect(findViolations(7, ahead).length).toBeGreaterThan(0)

    const reordered = stateAfter(7, 40)
    if (reordered[1]) encodeCounter(41).copy(reordered[1])
    expect(findViolations(7, reordered)[0]).toContain('order broken')

    const torn = stateAfter(7, 40)
    torn[0]?.writeUInt32LE(99, 4)
    expect(findViolations(7, torn)[0]).toContain('torn counter')
  })
})
