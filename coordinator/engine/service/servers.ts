import { defined } from '#shared/assert.ts'
import type { CoordinatorService } from '../../admin/service.ts'
import type { ServerView } from '../../admin/views.ts'
import { listInventories } from '../../store/inventory.ts'
import { listProtectedVms } from '../../store/protected-vms.ts'
import { listReports } from '../../store/reports.ts'
import type { Db } from '../../store/schema.ts'
import { listServers, revokeServer, type ServerRow } from '../../store/servers.ts'
import { emit } from '../emit.ts'
import type { Engine } from '../engine.ts'
import type { VaultTrusts } from '../vault-trust.ts'
import { resolveServer } from './resolve.ts'

type ServerService = Pick<CoordinatorService, 'listServers' | 'showServer' | 'removeServer'>

export function serverService({ engine, trusts }: { engine: Engine; trusts: VaultTrusts }): ServerService {
  const { db } = engine
  return {
    listServers: () => serverViews(engine, db),
    async showServer(name) {
      const { serverId } = await resolveServer(db, name)
      const views = await serverViews(engine, db)
      return defined(
        views.find((view) => view.serverId === serverId),
        `server ${serverId}`,
      )
    },
    async removeServer(name) {
      const server = await resolveServer(db, name)
      await remove(engine, server)
      await trusts.reload()
      engine.connections.drop(({ peer }) => peer.serverId === server.serverId, {
        code: 'membership-revoked',
        message: `${server.name} was removed from the vault`,
      })
      engine.bus.notify()
    },
  }
}

/** At once and whatever depends on it: a stolen key must be worth nothing. What depended on it is named. */
async function remove(engine: Engine, server: ServerRow): Promise<void> {
  const { vaultId, serverId, kind, name } = server
  await engine.db.transaction().execute(async (tx) => {
    const dependent = (await listProtectedVms(tx)).filter(({ vm }) =>
      [vm.source, vm.target].some((side) => side.agentId === serverId || side.providerId === serverId),
    )
    await revokeServer(tx, server, engine.clock.now())
    const names = dependent.map(({ vm }) => vm.name)
    const left = names.length > 0 ? `; these VMs need it: ${names.join(', ')}` : ''
    await emit(engine, tx, vaultId, {
      severity: names.length > 0 ? 'critical' : 'info',
      code: 'server-removed',
      message: `${kind} ${name} was removed from the vault${left}`,
      serverId,
    })
  })
}

async function serverViews(engine: Engine, db: Db): Promise<readonly ServerView[]> {
  const servers = await listServers(db)
  const agents = await listReports(db, 'agent')
  const inventories = await listInventories(db)
  return servers.map((server): ServerView => {
    const { vaultId, serverId } = server
    const mine = (row: { vaultId: string; serverId: string }) =>
      row.vaultId === vaultId && row.serverId === serverId
    const agent = agents.find(mine)?.report
    const inventory = inventories.find(mine)?.report
    return {
      serverId,
      kind: server.kind,
      name: server.name,
      host: agent?.host ?? inventory?.vmmServer ?? server.host,
      version: agent?.version ?? inventory?.version ?? null,
      registeredAtMs: server.registeredAtMs,
      connected: engine.connections.isConnected(vaultId, serverId),
      lastSeenAtMs: server.lastSeenAtMs,
      clockSkewMs: server.clockSkewMs,
      bytesReceived: server.bytesReceived,
      bytesSent: server.bytesSent,
    }
  })
}
