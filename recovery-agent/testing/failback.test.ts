import { randomBytes } from 'node:crypto'
import { closeSync, existsSync, openSync, writeSync } from 'node:fs'
import { expect, test } from 'vitest'
import { writeVm } from '#shared/folder/vm-file.ts'
import { overlayId } from '#shared/ids.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { compareImages, diskPath, twoHosts, until, VM } from './two-hosts.ts'

const never = new AbortController().signal

test('failover and reverse replication: the old disks are the base, only what differs travels (I5, I7)', async () => {
  await using hosts = await twoHosts({ diskBytes: [32 << 20] })
  const { east, west, vm, fabric } = hosts
  hosts.write(0, 0, 400, 1)
  await hosts.protect()
  await until('the first point', () => east.report().ackedSeq >= 1)
  const final = await east.agent.handlers['replication.finalDelta']({ vmId: VM }, never)

  // Planned failover: the VM runs on an overlay in the west and changes there.
  const { newest } = await west.agent.handlers['replica.fence']({ vmId: VM, epoch: 2 }, never)
  expect(newest).toEqual(final.point)
  await east.agent.handlers['replication.fence']({ vmId: VM, epoch: 2 }, never)
  const overlay = overlayId.parse('failover-1')
  const made = await west.agent.handlers['overlay.create'](
    { vmId: VM, overlayId: overlay, point: null, purpose: 'failover', verify: true },
    never,
  )
  expect(made.point).toEqual(final.point)
  const [overlayDisk] = made.disks
  if (!overlayDisk) throw new Error('no disk')
  const failedOver = fabric.addVm({
    host: 'west',
    name: 'vm-west',
    diskBytes: [],
    file: { disks: [{ id: overlayDisk.diskId, name: 'disk', file: overlayDisk.path, boot: true }] },
  })
  writeThrough(overlayDisk.path, 100, 12)
  await west.agent.handlers['replica.commit']({ vmId: VM, overlayId: overlay }, never)

  // Reverse replication.
  const policy = replicationPolicy.parse({ copyFrequencySeconds: 900, compression: false })
  const adopt = { vmId: VM, epoch: 3, fabricVmId: vm.file.id, sourceServerId: west.serverId, policy }
  await east.agent.handlers['replica.adopt'](adopt, never)
  await east.agent.handlers['replica.adopt'](adopt, never)
  expect(() => east.report()).toThrow('does not replicate')
  await west.agent.handlers['replication.start'](
    {
      vmId: VM,
      epoch: 3,
      fabricVmId: failedOver.file.id,
      target: hosts.addressOf(east),
      ticket: hosts.ticket({ epoch: 3, source: west.serverId, target: east.serverId }),
      policy,
      cause: 'reversed',
      notBeforeMs: null,
    },
    never,
  )
  await until('the first point in the east', () => west.report().activity === 'replicating')
  expect(west.report().totals).toMatchObject({ changedBytes: 12 * 65_536 })
  const [point] = await east.agent.store.points(VM)
  if (!point) throw new Error('no point')
  expect(point.attested).toBe(true)
  compareImages(await east.agent.store.layerPath(VM, point, overlayDisk.diskId), overlayDisk.path)
  // The disk of the old primary was only read.
  expect(diskPath(vm, 0)).not.toBe(overlayDisk.path)
})

test('disks of a committed failover go once the VM runs elsewhere and is defined here without them, not before', async () => {
  await using hosts = await twoHosts({ diskBytes: [4 << 20] })
  const { east, west, fabric } = hosts
  hosts.write(0, 0, 9, 1)
  await hosts.protect()
  await until('the first point', () => east.report().ackedSeq >= 1)
  const { handlers } = west.agent
  await handlers['replica.fence']({ vmId: VM, epoch: 2 }, never)
  const overlay = { vmId: VM, overlayId: overlayId.parse('failover-1') }
  const made = await handlers['overlay.create'](
    { ...overlay, point: null, purpose: 'failover', verify: true },
    never,
  )
  const [disk] = made.disks
  if (!disk) throw new Error('no disk')
  const disks = [{ id: disk.diskId, name: 'disk', file: disk.path, boot: true }]
  const ran = fabric.addVm({ host: 'west', name: 'vm-west', diskBytes: [], file: { disks } })
  await handlers['replica.commit'](overlay, never)

  // As if it had come back to the east meanwhile: the west is its target again, from the disks it ran on.
  const policy = replicationPolicy.parse({ copyFrequencySeconds: 900, retentionIntervalSeconds: 0 })
  const { id: fabricVmId } = ran.file
  await handlers['replica.adopt'](
    { vmId: VM, epoch: 3, fabricVmId, sourceServerId: east.serverId, policy },
    never,
  )
  await hosts.protect({ epoch: 3, cause: 'reversed' })
  const copy = () => east.agent.handlers['replication.copyNow']({ vmId: VM }, never)
  await until('the reversed source', () => east.report().activity === 'replicating')
  await copy()
  await until('a pruned replica', async () => (await west.agent.store.points(VM)).length === 1)
  await handlers['replica.pin']({ vmId: VM, point: (await copy()).point, pinned: false }, never)
  expect(existsSync(disk.path)).toBe(true)
  writeVm(ran.dir, { ...ran.file, disks: [] })
  await copy()
  await until('the removal', () => !existsSync(disk.path))
  await hosts.compareNewest()
})

function writeThrough(path: string, firstBlock: number, blocks: number): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, randomBytes(blocks * 65_536), 0, blocks * 65_536, firstBlock * 65_536)
  closeSync(fd)
}
