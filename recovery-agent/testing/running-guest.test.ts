import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { COUNTER_OFFSET_BYTES, countingGuest } from '#shared/folder/testing/test-fabric.ts'
import { openFaultyLink } from './faulty-link.ts'
import { twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal

test('a guest that writes n to disk 0 and then to disk 1: at every point n1 <= n0 <= n1 + 1, and n grows', async () => {
  await using hosts = await twoHosts({ diskBytes: [4 << 20, 2 << 20], command: countingGuest })
  await using link = await openFaultyLink(hosts.west.agent.listen.port)
  await hosts.fabric.start(hosts.vm)
  await hosts.protect({ via: link.port, policy: { retentionPoints: 15 } })
  await until('the first point', () => hosts.east.report().ackedSeq >= 1)
  for (let copy = 0; copy < 5; copy++) {
    const copied = hosts.east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
    if (copy % 2 === 1) link.cut()
    await copied
  }
  const { store } = hosts.west.agent
  let before = -1
  const points = (await store.points(VM)).toSorted((a, b) => a.seq - b.seq)
  expect(points).toHaveLength(6)
  for (const point of points) {
    const [n0, n1] = await Promise.all(
      hosts.vm.file.disks.map(async ({ id }) => {
        const raw = join(hosts.vm.dir, `point-${point.seq}-${id}`)
        const layer = await store.layerPath(VM, point, id)
        execFileSync('qemu-img', ['convert', '-U', '-f', 'qcow2', '-O', 'raw', layer, raw])
        return Number(readFileSync(raw).readBigUInt64LE(COUNTER_OFFSET_BYTES))
      }),
    )
    if (n0 === undefined || n1 === undefined) throw new Error('two disks')
    expect([n1, n1 + 1]).toContain(n0)
    expect(n0).toBeGreaterThan(before)
    before = n0
  }
})
