import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, describe, expect, test } from 'vitest'
import type { Message } from '../channel/message.ts'
import type { Channel } from '../channel/port.ts'
import { eventually, testListener, testVault } from '../channel/testing.ts'
import { systemClock } from '../clock.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { fabricVmId, serverId } from '../ids.ts'
import { silentLog } from '../log.ts'
import type { CommandHandlers } from '../messages/commands.ts'
import { systemRng } from '../rng.ts'
import { openSqlite, type Sqlite } from '../sqlite.ts'
import { makeTlsIdentity } from '../trust/tls-identity.ts'
import { commandResultSchema, openCommandResultStore } from './command-results.ts'
import { createCommandRunner } from './command-runner.ts'
import { runCoordinatorLink } from './coordinator-link.ts'
import { openReportOutbox, reportOutboxSchema } from './report-outbox.ts'

type Kinds = 'vm.observe' | 'vm.stop'
const observation = { exists: true, power: 'off' as const, heartbeatAgeMs: null, nics: [], fenced: false }
const never = new AbortController().signal

let dir: string
let db: Sqlite
const openDb = () =>
  openSqlite({
    path: join(dir, 'state.db'),
    migrations: [{ name: 'all', sql: commandResultSchema + reportOutboxSchema }],
    profile: 'control',
  })
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'hotsite-agent-link-'))
  db = openDb()
})
afterEach(() => {
  db.close()
  rmSync(dir, { recursive: true, force: true })
})

function runnerWith(handlers: Partial<CommandHandlers<Kinds>>, kept?: number) {
  return createCommandRunner<Kinds>({
    kinds: ['vm.observe', 'vm.stop'],
    handlers: { 'vm.observe': async () => observation, 'vm.stop': async () => observation, ...handlers },
    store: openCommandResultStore(db, kept),
    log: silentLog,
    signal: never,
  })
}

const command = (commandId: string, kind = 'vm.stop', request: unknown = { fabricVmId: 'vm1' }) => ({
  commandId,
  kind,
  json: Buffer.from(JSON.stringify(request)),
})
const bodyOf = (result: { json: Buffer }) => JSON.parse(result.json.toString())

describe('commands', () => {
  test('a repeat while running attaches, a repeat afterwards and after a restart is answered from memory (I4)', async () => {
    let runs = 0
    const release = Promise.withResolvers<void>()
    const handler = async () => {
      runs += 1
      await release.promise
      return observation
    }
    const runner = runnerWith({ 'vm.stop': handler })
    const both = [runner.run(command('c1')), runner.run(command('c1'))]
    release.resolve()
    for (const result of await Promise.all(both)) expect(result.ok).toBe(true)
    db.close()
    db = openDb()
    const again = await runnerWith({ 'vm.stop': handler }).run(command('c1'))
    expect([again.ok, bodyOf(again), runs]).toEqual([true, observation, 1])
  })

  test('a failure that may pass is tried again, one that stays is remembered', async () => {
    let runs = 0
    const fails = (code: 'disk-full' | 'not-found') => async () => {
      runs += 1
      throw new HotsiteError(code, 'no')
    }
    const passing = runnerWith({ 'vm.stop': fails('disk-full') })
    await passing.run(command('c1'))
    expect(bodyOf(await passing.run(command('c1')))).toMatchObject({ code: 'disk-full', retryable: true })
    expect(runs).toBe(2)
    const staying = runnerWith({ 'vm.stop': fails('not-found') })
    await staying.run(command('c2'))
    expect(bodyOf(await staying.run(command('c2')))).toMatchObject({ code: 'not-found' })
    expect(runs).toBe(3)
  })

  test.each([
    ['a kind nobody handles', command('c1', 'vm.define'), 'command-unknown'],
    [
      'a request of the wrong form',
      command('c1', 'vm.stop', { fabricVmId: '../x', extra: 1 }),
      'request-invalid',
    ],
    ['what is no JSON', { ...command('c1'), json: Buffer.from('{') }, 'request-invalid'],
  ])('%s is a result with a code', async (_case, sent, code) => {
    const result = await runnerWith({}).run(sent)
    expect([result.ok, bodyOf(result).code]).toEqual([false, code])
  })

  test('only so many results are kept, the newest', async () => {
    const runner = runnerWith({}, 3)
    for (const id of ['a', 'b', 'c', 'd', 'e']) await runner.run(command(id))
    const store = openCommandResultStore(db)
    expect(['a', 'b', 'c', 'd', 'e'].filter((id) => store.get(id))).toEqual(['c', 'd', 'e'])
  })
})

const event = (eventId: string) => ({
  eventId,
  atMs: 1,
  severity: 'info' as const,
  code: 'test',
  message: 'm',
  vmId: null,
})
const agent = (nowMs: number) => ({
  host: 'h',
  version: '1',
  listen: { host: 'h', port: 1 },
  certificatePem: '',
  replicaFreeBytes: 0,
  bufferBytes: 0,
  bufferMaxBytes: 0,
  nowMs,
})

describe('reports', () => {
  test('of each thing only the newest state is due; an acknowledgement of an older one does not hide it', () => {
    const outbox = openReportOutbox(db)
    outbox.set('agent', 'self', agent(1))
    outbox.set('agent', 'self', agent(2))
    const first = outbox.take()
    expect(JSON.parse(String(first?.json))).toMatchObject({ nowMs: 2 })
    expect(outbox.take()).toBeUndefined()
    outbox.set('agent', 'self', agent(3))
    expect(outbox.take()).toBeUndefined()
    outbox.acknowledge(first?.reportSeq ?? 0)
    const second = outbox.take()
    expect(JSON.parse(String(second?.json))).toMatchObject({ nowMs: 3 })
    outbox.acknowledge(second?.reportSeq ?? 0)
    expect(outbox.take()).toBeUndefined()
    outbox.restart()
    expect(JSON.parse(String(outbox.take()?.json))).toMatchObject({ nowMs: 3 })
  })

  test('events outlive a restart until acknowledged, in order, with numbers above those of the earlier life', () => {
    const before = openReportOutbox(db)
    for (const id of ['e1', 'e2', 'e2', 'e3']) before.event(event(id))
    const sent = before.take()
    before.acknowledge(sent?.reportSeq ?? 0)
    const lastNumber = before.take()?.reportSeq ?? 0
    db.close()
    db = openDb()
    const after = openReportOutbox(db)
    const due = [after.take(), after.take(), after.take()]
    expect(due.map((report) => report && JSON.parse(String(report.json)).eventId)).toEqual([
      'e2',
      'e3',
      undefined,
    ])
    expect(due[0]?.reportSeq).toBeGreaterThan(lastNumber)
  })

  test('events are bounded: the oldest go', () => {
    const outbox = openReportOutbox(db, 2)
    for (const id of ['e1', 'e2', 'e3']) outbox.event(event(id))
    expect(JSON.parse(String(outbox.take()?.json)).eventId).toBe('e2')
  })
})

test('over a real channel: commands run while the link breaks, states and events come again after the reconnect', async () => {
  const vault = testVault()
  const tls = await makeTlsIdentity('coordinator')
  await using coordinator = await testListener(vault, { tls })
  const self = vault.server('agent-1')
  const stop = new AbortController()
  const release = Promise.withResolvers<void>()
  const started = Promise.withResolvers<void>()
  let runs = 0
  const reports = openReportOutbox(db)
  reports.event(event('e1'))
  reports.set('agent', 'self', agent(1))
  const link = runCoordinatorLink<Kinds>({
    identity: {
      vaultId: vault.vaultId,
      vaultName: 'vault',
      serverId: serverId.parse('agent-1'),
      kind: 'agent',
      name: 'agent-1',
      ...self,
      vaultPublicKey: vault.keys.publicKey,
      generation: 1,
      coordinatorCertificatePem: tls.certificatePem,
      channelAddresses: [
        { host: '127.0.0.1', port: 1 },
        { host: '127.0.0.1', port: coordinator.listener.port },
      ],
      registeredAtMs: 0,
    },
    kinds: ['vm.observe', 'vm.stop'],
    handlers: {
      'vm.observe': async () => observation,
      'vm.stop': async ({ fabricVmId: id }) => {
        expect(id).toBe(fabricVmId.parse('vm1'))
        runs += 1
        started.resolve()
        await release.promise
        return observation
      },
    },
    store: openCommandResultStore(db),
    reports,
    clock: systemClock,
    rng: systemRng,
    log: silentLog,
    signal: stop.signal,
    backoff: { minMs: 5, maxMs: 20 },
  })

  const first = await coordinator.channel(0)
  const seen = collect(first)
  void first.send({ kind: 'command', body: command('c1') })
  await started.promise
  await eventually(() => seen.length >= 2, 'both reports')
  first.close()

  const second = await coordinator.channel(1)
  const again = collect(second)
  void second.send({ kind: 'command', body: command('c1') })
  release.resolve()
  const result = await eventually(() => again.find(({ kind }) => kind === 'commandResult'), 'the result')
  expect(result.body).toMatchObject({ commandId: 'c1', ok: true })
  expect(runs).toBe(1)
  await eventually(() => again.filter(({ kind }) => kind === 'report').length >= 2, 'both reports again')
  for (const message of again) {
    if (message.kind === 'report') {
      void second.send({ kind: 'reportAck', body: { reportSeq: message.body.reportSeq } })
    }
  }
  await eventually(
    () => db.prepare('SELECT count(*) AS n FROM events').pluck().get() === 0,
    'the event acknowledged',
  )
  stop.abort()
  await link
})

function collect(channel: Channel): Message[] {
  const seen: Message[] = []
  void (async () => {
    for await (const message of channel.messages()) seen.push(message)
  })()
  return seen
}
