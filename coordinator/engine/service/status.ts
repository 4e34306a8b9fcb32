import { X509Certificate } from 'node:crypto'
import type { CoordinatorService } from '../../admin/service.ts'
import type { StatusView, VmView } from '../../admin/views.ts'
import { verdictOf, whatNeedsAPerson } from '../../domain/status.ts'
import { ofTwins } from '../../domain/twins.ts'
import { listEvents } from '../../store/events.ts'
import { listJobs } from '../../store/jobs.ts'
import { listProtectedVms } from '../../store/protected-vms.ts'
import { listServers } from '../../store/servers.ts'
import { listVaults } from '../../store/vaults.ts'
import type { Engine } from '../engine.ts'
import { allVmViews } from './vm-views.ts'

export function statusService(
  engine: Engine,
  version: string,
): Pick<CoordinatorService, 'listEvents' | 'status'> {
  return {
    async listEvents({ limit }) {
      const names = new Map((await listProtectedVms(engine.db)).map(({ vm }) => [vm.vmId, vm.name]))
      return (await listEvents(engine.db, limit)).map((event) => ({
        eventId: event.eventId,
        atMs: event.atMs,
        severity: event.severity,
        code: event.code,
        message: event.message,
        vm: event.vmId === null ? null : (names.get(event.vmId) ?? event.vmId),
      }))
    },
    status: () => status(engine, version),
  }
}

/** Where the status looks for what is going on now. */
const recentEvents = 200

async function status(engine: Engine, version: string): Promise<StatusView> {
  const { db, clock, connections, limits } = engine
  const nowMs = clock.now()
  const vaults = await listVaults(db)
  const servers = await listServers(db)
  const views = await allVmViews(engine)
  const protectedVms = views.filter(({ vmId }) => vmId !== null)
  const isConnected = (row: (typeof servers)[number]) => connections.isConnected(row.vaultId, row.serverId)
  const waiting = (await listJobs(db, 200)).filter(({ state }) => state === 'waiting')
  const recent = (await listEvents(db, recentEvents)).flatMap(({ code, serverId, atMs }) => {
    const server = servers.find((row) => row.serverId === serverId)
    // Every period in which they still meet has an event of its own.
    const isNow = code === 'identity-twice' && nowMs - atMs < limits.refusalRepeatMs
    return server && isNow ? [{ server: server.name, atMs }] : []
  })
  const found = whatNeedsAPerson({
    nowMs,
    drillDueMs: limits.drillDueMs,
    vms: protectedVms,
    servers: servers.map((row) => ({
      name: row.name,
      kind: row.kind,
      connected: isConnected(row),
      clockSkewMs: row.clockSkewMs,
      membershipIssuedAtMs: row.registeredAtMs,
      membershipExpiresAtMs: row.membershipExpiresAtMs,
      outdated: vaults.some(
        ({ vaultId, keyGeneration }) => vaultId === row.vaultId && keyGeneration > row.generation,
      ),
    })),
    vaults: vaults.map(({ name, certificatePem }) => ({
      name,
      certificateNotAfterMs:
        certificatePem === null ? null : new X509Certificate(certificatePem).validToDate.getTime(),
    })),
    waitingJobs: waiting.map(({ jobId, kind, vmName, waitingFor }) => ({ jobId, kind, vmName, waitingFor })),
    clockSkewWarnMs: limits.clockSkewWarnMs,
  })
  const needsAttention = [...ofTwins(recent, nowMs), ...found]
  return {
    vault: vaults.length === 1 ? (vaults[0]?.name ?? null) : null,
    nowMs,
    version,
    verdict: verdictOf(
      protectedVms.map(({ health }: VmView) => health),
      needsAttention,
    ),
    servers: { total: servers.length, connected: servers.filter(isConnected).length },
    vms: [...views],
    needsAttention: needsAttention.map((item) => ({ ...item })),
  }
}
