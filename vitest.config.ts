import { defineConfig } from 'vitest/config'

const guests = '**/libvirt/*.test.ts'

export default defineConfig({
  test: {
    projects: [
      {
        test: {
          name: 'all',
          include: ['**/*.test.ts'],
          exclude: ['**/node_modules/**', guests],
          testTimeout: 60_000,
          hookTimeout: 60_000,
          // Many tests wait for daemons of their own; on two cores a third worker fills the gaps.
          maxWorkers: 3,
          sequence: { groupOrder: 0 },
        },
      },
      {
        test: {
          name: 'guests',
          include: [guests],
          exclude: ['**/node_modules/**'],
          // An emulated guest takes a processor for itself, so nothing else runs beside it, and it is given time.
          testTimeout: 240_000,
          hookTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
    ],
  },
})
