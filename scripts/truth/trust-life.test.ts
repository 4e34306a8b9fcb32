/** Removal, regeneration of the vault key and new identities, on real daemons with a VM that is replicated meanwhile. */
import { expect, it, vi } from 'vitest'
import type { VmId } from '#shared/ids.ts'
import { TrustSite, until } from './trust-site.ts'

// Four daemons and a coordinator, each of which makes its writes durable, on whatever disk there is.
vi.setConfig({ testTimeout: 180_000 })

/** One more point at the target; the sequence is without a gap, so nothing was synchronized in between. */
async function replicates(site: TrustSite, vmId: VmId, seq: number): Promise<void> {
  site.write(seq, `content of point ${seq}`)
  expect(await site.copyNow(vmId)).toBe(seq)
  expect(reportOf(site)?.lastCycle).toMatchObject({ seq, changedBlocks: 1 })
  expect(await site.newestAtWest(vmId)).toBe(seq)
}

function reportOf(site: TrustSite) {
  const { reports } = site.agent('east')
  reports.restart()
  for (let report = reports.take(); report; report = reports.take()) {
    if (report.kind === 'replication') return JSON.parse(String(report.json))
  }
}

const resyncs = async (site: TrustSite) =>
  (await site.service.listEvents({ limit: 200 })).filter(({ code }) => code === 'resync-began')

const isLinked = (site: TrustSite) => reportOf(site)?.peerConnected === true

it('the source server is removed: its target takes nothing more of it, with the coordinator and without', async () => {
  await using site = await TrustSite.start()
  const vmId = await site.vmId()
  await replicates(site, vmId, 2)
  await site.service.removeServer('agent-east')
  await until('the refusal to be an event', async () =>
    (await site.service.listEvents({ limit: 50 })).some(
      ({ code, message }) => code === 'membership-revoked' && message.includes('agent-east'),
    ),
  )
  await site.stopCoordinator()
  site.write(9, 'of a removed server')
  const copied = site.copyNow(vmId).then(
    () => 'accepted',
    () => 'not accepted',
  )
  await until('the delta to be captured', () => reportOf(site)?.sealedSeq === 3)
  await site.stopAgent('west')
  await site.startAgent('west')
  await until(
    'the refusal by the restarted target',
    () => reportOf(site)?.peerConnected === false && refusalsOf(site) > 0,
  )
  expect(await site.newestAtWest(vmId)).toBe(2)
  await site.stopAgent('east')
  expect(await copied).toBe('not accepted')
})

function refusalsOf(site: TrustSite): number {
  const { reports } = site.agent('west')
  reports.restart()
  let count = 0
  for (let report = reports.take(); report; report = reports.take())
    if (report.kind === 'event' && String(report.json).includes('membership-revoked')) count += 1
  return count
}

it('the vault key is regenerated: agents go on until they register again, and without a resync after both have', async () => {
  await using site = await TrustSite.start()
  const vmId = await site.vmId()
  await replicates(site, vmId, 2)
  const before = { east: site.identity('east', 'agent'), west: site.identity('west', 'agent') }
  await site.service.regenerateKey('main')
  await until('all to be dropped', async () =>
    (await site.service.listServers()).every(({ connected }) => !connected),
  )
  // The coordinator believes nobody; the agents know one generation, and it is the same.
  await replicates(site, vmId, 3)

  await site.registerAgain('east')
  site.write(4, 'content of point 4')
  const copied = site.copyNow(vmId).catch((error: unknown) => error)
  await until('the delta to be captured', () => reportOf(site)?.sealedSeq === 4)
  expect(isLinked(site)).toBe(false)
  expect(await site.newestAtWest(vmId)).toBe(3)

  await site.registerAgain('west')
  expect(await copied).toBe(4)
  await replicates(site, vmId, 5)
  for (const host of ['east', 'west'] as const)
    expect(site.identity(host, 'agent')).toMatchObject({ serverId: before[host].serverId, generation: 2 })
  for (const host of ['east', 'west'] as const) {
    await site.stopProvider(host)
    await site.register(host, 'provider')
    site.startProvider(host)
  }
  await site.allConnected()
  expect(await resyncs(site)).toEqual([])
  expect(await site.newestAtWest(vmId)).toBe(5)
})

it('each side gets a new identity with --replace: the pair works again, a delta that waited is not lost', async () => {
  await using site = await TrustSite.start()
  const vmId = await site.vmId()
  await replicates(site, vmId, 2)
  const old = site.identity('west', 'agent').serverId
  await site.registerAgain('west', { replace: true })
  expect(site.identity('west', 'agent').serverId).not.toBe(old)
  await replicates(site, vmId, 3)
  await site.registerAgain('east', { replace: true })
  await replicates(site, vmId, 4)
  expect(await resyncs(site)).toEqual([])

  // A delta that the old identity signed and did not get rid of: the hashes of the two sides are compared instead.
  await site.stopAgent('west')
  site.write(5, 'signed by the old key')
  void site.copyNow(vmId).catch(() => {})
  await until('the delta to be captured', () => reportOf(site)?.sealedSeq === 5)
  await site.registerAgain('east', { replace: true })
  await site.startAgent('west')
  await until('the copy of it', async () => (await site.newestAtWest(vmId)) >= 5)
  await until('the pair to be in step', () => isLinked(site) && reportOf(site)?.activity === 'replicating')
})
