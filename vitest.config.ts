import { mkdtempSync, rmSync, statfsSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { fileURLToPath } from 'node:url'
import { defineConfig } from 'vitest/config'

/**
 * Daemons, their workers and command lines that tests start strip the types of every file anew otherwise: 0.4 s of
 * processor time each, a thousand times. Set here, and not as `env` below, so that the workers of vitest begin with it.
 */
process.env['NODE_COMPILE_CACHE'] ??= fileURLToPath(new URL('node_modules/.cache/hotsite', import.meta.url))

/** What all workers together need at a time is a tenth of it. */
const ROOM_BYTES = 6 * 2 ** 30

/**
 * In memory where there is room: a disk takes milliseconds for each of the many fsyncs. What a test proves of durability it
 * proves by killing processes and by files that lose what was not synced, never by the disk below.
 */
function temporaryFolder(): string {
  try {
    const { bavail, bsize } = statfsSync('/dev/shm')
    if (bavail * bsize < ROOM_BYTES) return tmpdir()
    const dir = mkdtempSync('/dev/shm/hotsite-')
    process.once('exit', () => rmSync(dir, { recursive: true, force: true }))
    return dir
  } catch {
    return tmpdir()
  }
}

export default defineConfig({
  test: {
    include: ['**/*.test.ts'],
    exclude: ['**/node_modules/**'],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    // Many tests wait for daemons of their own; on two cores a third worker fills the gaps.
    maxWorkers: 3,
    env: { TMPDIR: temporaryFolder() },
  },
})
