import { mkdtempSync, readdirSync, rmSync, truncateSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { expect, onTestFinished, test } from 'vitest'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { MIN_PART_BYTES } from '../seed/export-seed.ts'
import { twoHosts, until, VM } from './two-hosts.ts'

const MiB = 1 << 20
const keyBase64 = Buffer.alloc(32, 9).toString('base64')
const never = new AbortController().signal

function seedFolder(): string {
  const folder = mkdtempSync(join(tmpdir(), 'hotsite-carried-'))
  onTestFinished(() => rmSync(folder, { recursive: true, force: true }))
  return folder
}

test('a carried seed saves the transfer: only what changed since travels, and the first point is attested', async () => {
  await using hosts = await twoHosts({ diskBytes: [48 * MiB, 4 * MiB] })
  const { east, west, vm } = hosts
  const folder = seedFolder()
  hosts.write(0, 0, 600, 1)
  hosts.write(1, 0, 20, 2)
  const exporting = { vmId: VM, fabricVmId: vm.file.id, folder, partBytes: MIN_PART_BYTES, keyBase64 }
  const exported = await east.agent.handlers['seed.export'](exporting, never)
  expect(exported).toMatchObject({ blocks: 620 })
  hosts.write(0, 100, 7, 3)
  const policy = replicationPolicy.parse({ compression: false })
  const importing = { vmId: VM, epoch: 1, sourceServerId: east.serverId, policy, folder, keyBase64 }
  const imported = await west.agent.handlers['seed.import'](importing, never)
  expect(imported).toMatchObject({ blocks: 620, problems: [] })
  // Twice, and after a restart in between: what is there stays.
  await west.stop()
  await west.start()
  await west.agent.handlers['seed.import'](importing, never)
  await hosts.protect({ policy: { compression: false } })
  await until('the first point', () => east.report().activity === 'replicating')
  expect(east.report().totals.sentBytes).toBe(7 * 65_536)
  await hosts.compareNewest()
  expect((await west.agent.store.points(VM))[0]?.attested).toBe(true)
  // Too late to matter: replication has begun.
  expect(await west.agent.handlers['seed.import'](importing, never)).toMatchObject({ blocks: 0 })
  await hosts.compareNewest()
})

test('a part that was lost on the way is named, and travels over the network', async () => {
  await using hosts = await twoHosts({ diskBytes: [64 * MiB] })
  const { east, west, vm } = hosts
  const folder = seedFolder()
  hosts.write(0, 0, 900, 1)
  await east.agent.handlers['seed.export'](
    { vmId: VM, fabricVmId: vm.file.id, folder, partBytes: MIN_PART_BYTES, keyBase64 },
    never,
  )
  const [, lost] = readdirSync(folder)
    .filter((name) => name.endsWith('.seed'))
    .sort()
  truncateSync(join(folder, lost ?? ''), 100)
  const policy = replicationPolicy.parse({ compression: false })
  const imported = await west.agent.handlers['seed.import'](
    { vmId: VM, epoch: 1, sourceServerId: east.serverId, policy, folder, keyBase64 },
    never,
  )
  expect(imported.problems).toHaveLength(1)
  await hosts.protect({ policy: { compression: false } })
  await until('the first point', () => east.report().activity === 'replicating')
  expect(east.report().totals.sentBytes).toBe((900 - imported.blocks) * 65_536)
  await hosts.compareNewest()
})
