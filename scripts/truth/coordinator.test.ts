/** What the coordinator must not see (I1), and what must go on without it (I12), on the real daemons. */
import { execFileSync } from 'node:child_process'
import { randomFillSync } from 'node:crypto'
import { closeSync, mkdirSync, mkdtempSync, openSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, it } from 'vitest'
import { z } from 'zod'
import { serverView, vmView } from '#coordinator/admin/views.ts'
import { systemClock } from '#shared/clock.ts'
import { vmsDir } from '#shared/folder/layout.ts'
import { startProgram } from '#shared/folder/process.ts'
import { openProcessTable } from '#shared/folder/process-table.ts'
import { writeVm } from '#shared/folder/vm-file.ts'
import { diskId, fabricVmId } from '#shared/ids.ts'
import { hasTool } from '#shared/testing/tools.ts'
import { openFaultyLink } from '../faults/faulty-link.ts'
import { guestName, makeTemplate, restoreTemplate, startWorld } from '../faults/world.ts'
import { findGuest, killGuest } from '../lab-kit/guest.ts'
import { labDown, labUp } from '../lab-kit/lab.ts'
import type { LabLayout } from '../lab-kit/layout.ts'
import { waitUntil } from '../lab-kit/processes.ts'
import { readLabState } from '../lab-kit/state.ts'

const GIB = 2 ** 30

function makeGibibyteGuest(layout: LabLayout): void {
  const dir = join(vmsDir(layout.fabricRoot('site-a'), 'host-a1'), 'big')
  mkdirSync(dir, { recursive: true })
  const fd = openSync(join(dir, 'disk0.img'), 'w')
  const chunk = Buffer.alloc(4 * 2 ** 20)
  for (let offset = 0; offset < GIB; offset += chunk.length)
    writeSync(fd, randomFillSync(chunk), 0, chunk.length, offset)
  closeSync(fd)
  writeVm(dir, {
    id: fabricVmId.parse('big-guest'),
    name: 'big',
    generation: 1,
    operatingSystem: '',
    memoryBytes: 0,
    cpuCount: 1,
    disks: [{ id: diskId.parse('disk0'), name: 'disk0', file: 'disk0.img', boot: true }],
    nics: [],
    classification: null,
    command: ['true'],
  })
}

/** bytes_received of the connections that end at the coordinator's port, as the kernel counts them (ss(8), tcp_info). */
function kernelBytesReceived(port: number): number {
  const out = execFileSync('ss', ['-tinHO', 'state', 'established', 'sport', '=', `:${port}`], {
    encoding: 'utf8',
  })
  return [...out.matchAll(/bytes_received:(\d+)/g)].reduce((sum, [, bytes]) => sum + Number(bytes), 0)
}

it.skipIf(!hasTool('ss'))(
  'while 1 GiB is replicated the coordinator receives less than 1 MiB, by its own counters and by the kernel (I1)',
  async () => {
    const dir = join(mkdtempSync(join(tmpdir(), 'hotsite-gib-')), 'lab')
    try {
      const lab = await labUp(dir, {
        progress: () => {},
        makeGuest: makeGibibyteGuest,
        startGuest: async () => {},
      })
      await lab.cli('cloud', 'pair', 'vmm-a/gold-a', 'vmm-b/gold-b', '--copy-frequency', '30s')
      await lab.cli('vm', 'protect', 'big')
      const vm = vmView.parse(await lab.cli('vm', 'show', 'big'))
      expect(vm.totals?.sentBytes).toBeGreaterThanOrEqual(GIB)
      const servers = z.array(serverView).parse(await lab.cli('server', 'list'))
      const counted = servers.reduce((sum, server) => sum + server.bytesReceived, 0)
      const byKernel = kernelBytesReceived(readLabState(lab.layout)?.ports.channel ?? 0)
      process.stdout.write(
        `coordinator received ${counted} bytes by its counters, ${byKernel} by the kernel\n`,
      )
      expect(counted).toBeGreaterThan(0)
      expect(counted).toBeLessThan(2 ** 20)
      expect(byKernel).toBeGreaterThan(0)
      expect(byKernel).toBeLessThan(2 ** 20)
    } finally {
      await labDown(dir)
      rmSync(join(dir, '..'), { recursive: true, force: true })
    }
  },
  240_000,
)

/** Five minutes of 30-second copies; the agents of this world run their intervals fifteen times as fast. */
const cyclesAway = 10

it('with the coordinator away for five minutes of cycles, points go on appearing, and show up when it returns (I12)', async () => {
  const dir = join(mkdtempSync(join(tmpdir(), 'hotsite-away-')), 'world')
  try {
    await makeTemplate(dir)
    restoreTemplate(dir, 1)
    const world = await startWorld(dir)
    await using _link = await openFaultyLink({ listenPort: world.relayPort, targetPort: world.targetPort })
    const guest = findGuest(world.lab.layout, 'host-a1', guestName)
    await startProgram(guest, openProcessTable(), systemClock)
    const policy = ['--copy-frequency', '30s', '--retention-points', '15', '--retention-interval', '0s']
    await world.lab.cli('cloud', 'pair', 'vmm-a/gold-a', 'vmm-b/gold-b', ...policy)
    await world.lab.cli('vm', 'protect', guestName)
    const before = await world.points()
    const { vmId } = await world.vm()
    const newest = before.reduce((best, point) => (best.seq > point.seq ? best : point))

    await world.lab.kill('coordinator')
    const wanted = { ...newest, seq: newest.seq + cyclesAway }
    const arrived = await waitUntil(() => world.layers(wanted, vmId ?? '').length === 2, 120_000, 100)
    expect(arrived, `point ${newest.epoch}.${wanted.seq} at the target while the coordinator is away`).toBe(
      true,
    )

    world.lab.restart('coordinator')
    const listed = async () => (await world.points().catch(() => [])).map(({ seq }) => seq)
    expect(await waitUntil(async () => (await listed()).includes(wanted.seq), 60_000, 300)).toBe(true)
    const seqs = await listed()
    for (let seq = newest.seq; seq <= wanted.seq; seq++) expect(seqs).toContain(seq)
    await killGuest(guest)
  } finally {
    await labDown(dir)
    rmSync(join(dir, '..'), { recursive: true, force: true })
  }
}, 300_000)
