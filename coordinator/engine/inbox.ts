/** What agents say, turned into rows. Each message is stored before it is acknowledged, and may come twice (I4). */
import type { Bodies } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import { describeIssues } from '#shared/config.ts'
import { errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type CommandId, commandId, type VaultId } from '#shared/ids.ts'
import {
  type AgentReport,
  type EventReport,
  type InventoryReport,
  type ReplicationReport,
  type ReportKind,
  type ReportOf,
  reports,
} from '#shared/messages/reports.ts'
import { describeMs } from '../domain/quantities.ts'
import { putInventory } from '../store/inventory.ts'
import { endCommand, findCommand } from '../store/outbox.ts'
import { findProtectedVm } from '../store/protected-vms.ts'
import { listReports, putReport } from '../store/reports.ts'
import type { Db } from '../store/schema.ts'
import { listServers, setClockSkew } from '../store/servers.ts'
import { applyEffect } from './apply-effect.ts'
import { emit } from './emit.ts'
import type { Engine } from './engine.ts'
import { observeReplication } from './observe-replication.ts'
import { seedKeyBase64 } from './seed-keys.ts'

export async function receiveResult(
  engine: Engine,
  { peer }: Channel,
  body: Bodies['commandResult'],
): Promise<void> {
  const id = commandId.safeParse(body.commandId)
  if (!id.success) {
    engine.log.warn('result without a command', { serverId: peer.serverId })
    return
  }
  const nowMs = engine.clock.now()
  const key = { vaultId: peer.vaultId, commandId: id.data, serverId: peer.serverId }
  const json = await withoutSecrets(engine, key, Buffer.from(body.json).toString('utf8'))
  engine.crashPoint('result-before-store')
  const end = body.ok
    ? ({ state: 'done', result: wellFormed(json) ?? 'null', nowMs } as const)
    : ({ state: 'failed', error: wellFormed(json) ?? unreadable(), nowMs } as const)
  const isNew = await endCommand(engine.db, key, end)
  engine.crashPoint('result-stored')
  if (isNew) engine.bus.notify()
  else engine.log.debug('repeated result', { commandId: id.data })
}

/** An agent that quotes what it was given would bring the key of a seed into rows and views (I15). */
async function withoutSecrets(
  engine: Engine,
  { vaultId, commandId: id }: { vaultId: VaultId; commandId: CommandId },
  json: string,
): Promise<string> {
  const row = await findCommand(engine.db, vaultId, id)
  if (row?.kind !== 'seed.export' && row?.kind !== 'seed.import') return json
  const secret = await seedKeyBase64(engine, engine.db, row).catch(() => undefined)
  return secret === undefined ? json : json.replaceAll(secret, '[removed]')
}

function wellFormed(json: string): string | undefined {
  try {
    JSON.parse(json)
    return json
  } catch {
    return undefined
  }
}

const unreadable = () =>
  JSON.stringify(errorDocument(new HotsiteError('agent-answer-invalid', 'the agent answered with no JSON')))

export async function receiveReport(engine: Engine, channel: Channel, body: Bodies['report']): Promise<void> {
  const { peer } = channel
  const { reportSeq, kind } = body
  const known = kind in reports ? (kind as ReportKind) : undefined
  const parsed = known && reports[known].safeParse(parseJson(body.json))
  if (!known || !parsed?.success) {
    // Acknowledged all the same: the agent would send it again for ever, and it would be as unreadable as now.
    const problem = parsed?.error ? describeIssues(parsed.error) : 'unknown kind'
    engine.log.error('report not understood', { serverId: peer.serverId, kind, problem })
  } else {
    await engine.db
      .transaction()
      .execute((tx) => store(engine, tx, channel, { kind: known, report: parsed.data } as Received))
    engine.bus.notify()
  }
  engine.crashPoint('report-before-ack')
  await channel.send({ kind: 'reportAck', body: { reportSeq } })
}

type Received = { [Kind in ReportKind]: { readonly kind: Kind; readonly report: ReportOf<Kind> } }[ReportKind]

function parseJson(json: Uint8Array): unknown {
  try {
    return JSON.parse(Buffer.from(json).toString('utf8'))
  } catch {
    return undefined
  }
}

async function store(engine: Engine, tx: Db, { peer }: Channel, received: Received): Promise<void> {
  const { vaultId, serverId } = peer
  const row = { vaultId, serverId, receivedAtMs: engine.clock.now() }
  switch (received.kind) {
    case 'agent':
      await noteHost(engine, tx, peer, received.report)
      await putReport(tx, 'agent', '', { ...row, report: received.report })
      return noteClock(engine, tx, peer, received.report.nowMs)
    case 'inventory':
      return storeInventory(engine, tx, peer, received.report)
    case 'replica':
      if (!(await putReport(tx, 'replica', received.report.vmId, { ...row, report: received.report })))
        engine.log.warn('report of one VM too many', { serverId, vmId: received.report.vmId })
      return
    case 'replication':
      if (!(await putReport(tx, 'replication', received.report.vmId, { ...row, report: received.report })))
        engine.log.warn('report of one VM too many', { serverId, vmId: received.report.vmId })
      return noteReplication(engine, tx, peer, received.report)
    case 'event':
      return storeEvent(engine, tx, peer, received.report)
  }
}

type PeerOf = Channel['peer']

async function storeInventory(engine: Engine, tx: Db, peer: PeerOf, report: InventoryReport): Promise<void> {
  const { vaultId, serverId } = peer
  await putInventory(tx, { vaultId, serverId, receivedAtMs: engine.clock.now(), report })
  await noteClock(engine, tx, peer, report.nowMs)
}

function storeEvent(
  engine: Engine,
  tx: Db,
  { vaultId, serverId }: PeerOf,
  report: EventReport,
): Promise<void> {
  const { eventId, severity, code, message, vmId } = report
  const notice = { severity, code, message, serverId, eventId: `${serverId}/${eventId}` }
  return emit(engine, tx, vaultId, vmId === null ? notice : { ...notice, vmId })
}

/** Two agents that say they are the same host: one of them runs on a copied disk or a copied configuration. */
async function noteHost(engine: Engine, tx: Db, peer: PeerOf, { host }: AgentReport): Promise<void> {
  const others = await listReports(tx, 'agent')
  const twin = others.find(
    (other) =>
      other.vaultId === peer.vaultId && other.serverId !== peer.serverId && other.report.host === host,
  )
  if (!twin) return
  await emit(engine, tx, peer.vaultId, {
    severity: 'critical',
    code: 'host-twice',
    message: `${peer.name} and server ${twin.serverId} both say they are host ${host}; remove one of them`,
    serverId: peer.serverId,
    eventId: `host-twice/${[peer.serverId, twin.serverId].sort().join('/')}`,
  })
}

/** Order comes from sequence numbers, not clocks (I14); a clock that is off is shown, because data age is read from it. */
async function noteClock(engine: Engine, tx: Db, peer: PeerOf, theirNowMs: number): Promise<void> {
  const skewMs = theirNowMs - engine.clock.now()
  const before = (await listServers(tx, peer.vaultId)).find(({ serverId }) => serverId === peer.serverId)
  await setClockSkew(tx, peer, skewMs)
  const bad = Math.abs(skewMs) > engine.limits.clockSkewWarnMs
  const wasBad = Math.abs(before?.clockSkewMs ?? 0) > engine.limits.clockSkewWarnMs
  if (bad === wasBad) return
  const off = `${describeMs(Math.abs(skewMs))} ${skewMs > 0 ? 'ahead of' : 'behind'}`
  await emit(engine, tx, peer.vaultId, {
    severity: bad ? 'warning' : 'info',
    code: bad ? 'clock-skew' : 'clock-agrees',
    message: bad
      ? `the clock of ${peer.name} is ${off} the coordinator's; replication is not affected`
      : `the clock of ${peer.name} agrees with the coordinator's again`,
    serverId: peer.serverId,
  })
}

async function noteReplication(
  engine: Engine,
  tx: Db,
  { vaultId, serverId }: PeerOf,
  report: ReplicationReport,
): Promise<void> {
  const stored = await findProtectedVm(tx, vaultId, report.vmId)
  if (!stored) return
  const effect = observeReplication(stored.vm, { serverId, report, nowMs: engine.clock.now() })
  if (effect) await applyEffect(engine, tx, { vaultId, vmId: report.vmId, jobId: null }, effect)
}
