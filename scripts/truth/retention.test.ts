/** Done when: every sealed layer passes `qemu-img check`, every listed point `qemu-img compare`, down to each retention. */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  statSync,
  writeSync,
} from 'node:fs'
import { dirname, join } from 'node:path'
import { expect, it } from 'vitest'
import { intBelow, type Rng, seededRng } from '#shared/rng.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { openContent } from '../workload/content.ts'
import { type TestPair, testPair } from './test-pair.ts'

const disks = [
  { diskId: 'disk0', sizeBytes: 24 * 2 ** 20 },
  // No multiple of a block.
  { diskId: 'disk1', sizeBytes: 9 * 2 ** 20 + 1536 },
]
const points = 18

/** Text, noise, zeros and holes, also across the end of a block, on both disks. */
function writeSomething(path: string, rng: Rng): void {
  const content = openContent(rng)
  const { size } = statSync(path)
  const fd = openSync(path, 'r+')
  try {
    for (let i = 0; i < 12; i++) {
      const lengthBytes = 1 + intBelow(rng, 150_000)
      const bytes = rng.next() < 0.25 ? Buffer.alloc(lengthBytes) : content.take(lengthBytes)
      writeSync(fd, bytes, 0, lengthBytes, intBelow(rng, size - lengthBytes))
    }
  } finally {
    closeSync(fd)
  }
}

function qemuImg(...args: readonly string[]): { status: number | null; said: string } {
  const { status, stdout, stderr } = spawnSync('qemu-img', args, { encoding: 'utf8' })
  return { status, said: `${stdout}${stderr}` }
}

it.skipIf(!hasTool('qemu-img'))(
  'every point equals the copy of the source taken at its instant, while pruning goes down to 15, 3, 1 and 0',
  async () => {
    await using test = await testPair(disks)
    const rng = seededRng(20_261_122)
    const truth = (seq: number, disk: string) => join(test.dir, `${seq}-${disk}.truth`)
    const takeCopy = (seq: number) => {
      for (const { diskId } of disks) copyFileSync(test.diskPath(diskId), truth(seq, diskId))
    }
    for (const { diskId } of disks) writeSomething(test.diskPath(diskId), rng)
    await test.vm.start({ retentionPoints: 15 })
    takeCopy(1)
    for (let n = 2; n <= points; n++) {
      if (n === 9) growDisk(test)
      for (const { diskId } of disks) writeSomething(test.diskPath(diskId), rng)
      takeCopy(await test.vm.copyNow())
    }
    for (const retentionPoints of [15, 3, 1, 0]) {
      await test.vm.setPolicy({ retentionPoints })
      const listed = () => test.vm.points()
      const layerCount = async () => {
        const newest = (await listed()).at(-1)?.seq ?? 0
        const folders = disks.map(({ diskId }) => dirname(test.vm.layer(newest, diskId)))
        return Math.max(
          ...folders.map((dir) => readdirSync(dir).filter((file) => file.endsWith('.qcow2')).length),
        )
      }
      expect(await waitUntil(async () => (await listed()).length === retentionPoints + 1, 30_000)).toBe(true)
      // A merge renames files: whoever opens a chain at that instant has to open it again.
      expect(await waitUntil(async () => (await layerCount()) === retentionPoints + 1, 30_000)).toBe(true)
      for (const point of await listed()) {
        expect(point.attested).toBe(true)
        for (const { diskId } of disks) {
          const layer = test.vm.layer(point.seq, diskId)
          expect(qemuImg('check', '-f', 'qcow2', layer)).toMatchObject({ status: 0 })
          expect(existsSync(truth(point.seq, diskId))).toBe(true)
          const compared = qemuImg('compare', '-f', 'qcow2', '-F', 'raw', layer, truth(point.seq, diskId))
          expect(compared, `point ${point.seq}, ${diskId}, retention ${retentionPoints}`).toMatchObject({
            status: 0,
          })
        }
      }
    }
  },
  240_000,
)

/** An ordinary event in the life of a disk (I6). */
function growDisk(test: TestPair): void {
  const fd = openSync(test.diskPath('disk1'), 'r+')
  ftruncateSync(fd, 11 * 2 ** 20)
  closeSync(fd)
}
