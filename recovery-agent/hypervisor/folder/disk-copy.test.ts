import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import { diskId } from '#shared/ids.ts'
import { everythingAllocated, openDataMap } from '../data-map.ts'
import type { Extent } from '../port.ts'
import { copyData, createCopies, reconcileCopy, subtractExtents } from './disk-copy.ts'
import { closeDisks, type OpenDisk } from './open-disks.ts'

const SIZE_BYTES = 3 * 2 ** 20 + 555

describe('copy of a disk that is written meanwhile', () => {
  let dir: string
  let source: OpenDisk
  beforeEach(() => {
    dir = mkdtempSync(join(tmpdir(), 'hotsite-copy-'))
    const path = join(dir, 'source.img')
    const fd = openSync(path, 'wx+')
    ftruncateSync(fd, SIZE_BYTES)
    source = { diskId: diskId.parse('d'), path, fd, sizeBytes: SIZE_BYTES }
  })
  afterEach(() => {
    closeSync(source.fd)
    rmSync(dir, { recursive: true, force: true })
  })

  const changes: readonly [string, () => void][] = [
    ['nothing', () => {}],
    ['a byte, the first', () => writeSync(source.fd, 'x', 0)],
    ['a byte, the last', () => writeSync(source.fd, 'x', SIZE_BYTES - 1)],
    ['data in a hole', () => writeSync(source.fd, Buffer.alloc(70_000, 'new'), 0, 70_000, 2 * 2 ** 20)],
    [
      'data freed',
      () => {
        ftruncateSync(source.fd, 4096)
        ftruncateSync(source.fd, SIZE_BYTES)
      },
    ],
    [
      'everything freed',
      () => {
        ftruncateSync(source.fd, 0)
        ftruncateSync(source.fd, SIZE_BYTES)
      },
    ],
    ['a bigger disk', () => ftruncateSync(source.fd, SIZE_BYTES + 2 ** 20)],
    ['a smaller disk', () => ftruncateSync(source.fd, SIZE_BYTES - 2 ** 20)],
  ]
  test.each(
    changes.flatMap((change) => (['holes', 'no holes'] as const).map((map) => [...change, map] as const)),
  )('%s (%3$s known): the copy ends up equal', async (_what, change, known) => {
    const dataMap = known === 'holes' ? openDataMap() : everythingAllocated
    writeSync(source.fd, Buffer.alloc(200_000, 'old'), 0, 200_000, 1)
    writeSync(source.fd, Buffer.alloc(200_000, 'old'), 0, 200_000, SIZE_BYTES - 200_000)
    mkdirSync(join(dir, 'copy'))
    const [copy] = createCopies([source], join(dir, 'copy'))
    if (!copy) throw new Error('no copy')
    await copyData(source, copy, dataMap)
    change()
    const allocated = reconcileCopy(source, copy, dataMap, () => {})
    expect(readFileSync(copy.path).equals(readFileSync(source.path))).toBe(true)
    expect(allocated).toEqual(dataMap(source.fd, readFileSync(source.path).length))
    closeDisks([copy])
  })
})

test('what is left of extents is exactly what lies in the first and not in the second', () => {
  const extents = fc
    .array(fc.tuple(fc.integer({ min: 1, max: 5 }), fc.integer({ min: 1, max: 5 })), { maxLength: 8 })
    .map((gaps): Extent[] => {
      let at = -1
      return gaps.map(([gap, lengthBytes]) => {
        const offsetBytes = at + gap
        at = offsetBytes + lengthBytes
        return { offsetBytes, lengthBytes }
      })
    })
  const bytesOf = (list: readonly Extent[]) =>
    new Set(
      list.flatMap(({ offsetBytes, lengthBytes }) =>
        Array.from({ length: lengthBytes }, (_, i) => offsetBytes + i),
      ),
    )
  fc.assert(
    fc.property(extents, extents, (from, removed) => {
      const left = subtractExtents(from, removed)
      const gone = bytesOf(removed)
      expect([...bytesOf(left)]).toEqual([...bytesOf(from)].filter((byte) => !gone.has(byte)))
    }),
  )
})
