import fc from 'fast-check'
import { expect, test } from 'vitest'
import { ABSENT, ClusterMap, L2_ENTRIES, ZERO } from './cluster-map.ts'

/** Near each other, so that blocks meet in chunks and at their borders. */
const block = fc.oneof(fc.integer({ min: 0, max: 600 }), fc.integer({ min: 8100, max: 8300 }))
const write = fc.oneof(
  fc.record({
    block,
    state: fc.oneof(fc.constant(ABSENT), fc.constant(ZERO), fc.integer({ min: 1, max: 99 })),
  }),
  // Blocks in the order of the disk, as a first copy brings them.
  fc.record({ block, run: fc.integer({ min: 2, max: 300 }), state: fc.integer({ min: 1, max: 99 }) }),
)

test('it answers what was last said of each block, in whatever order it was said', () => {
  fc.assert(
    fc.property(fc.array(write, { maxLength: 20 }), (writes) => {
      const map = new ClusterMap()
      const truth = new Map<number, number>()
      for (const { block, state, ...rest } of writes)
        for (let i = 0; i < ('run' in rest ? rest.run : 1); i++) {
          map.set(block + i, state + i)
          truth.set(block + i, state + i)
        }
      const said = [...truth].filter(([, state]) => state !== ABSENT).sort(([a], [b]) => a - b)
      const rebuilt = new ClusterMap()
      for (const index of map.tableIndexes())
        rebuilt.setTable(index, map.table(index) ?? new Int32Array(L2_ENTRIES))
      for (const same of [map, map.copy(), rebuilt])
        expect(JSON.stringify([...same.entries()])).toBe(JSON.stringify(said))
      for (const [index, state] of truth) if (map.get(index) !== state) expect(map.get(index)).toBe(state)
      for (const index of map.tableIndexes()) {
        const wanted = Int32Array.from(
          { length: L2_ENTRIES },
          (_, i) => truth.get(index * L2_ENTRIES + i) ?? ABSENT,
        )
        expect(
          Buffer.from(wanted.buffer).equals(Buffer.from((map.table(index) ?? new Int32Array(0)).buffer)),
        ).toBe(true)
      }
    }),
    { numRuns: 100 },
  )
})

test('a copy does not change with its original', () => {
  const map = new ClusterMap()
  map.set(7, 1)
  const copy = map.copy()
  map.set(8, 2)
  expect([...copy.entries()]).toEqual([[7, 1]])
})
