import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import type { CaptureEngine, SealedDelta, SourceVmState } from '#recovery-agent/capture/port.ts'
import { noCrash } from '#shared/crash-point.ts'
import { fabricVmId, serverId, vmId } from '#shared/ids.ts'
import { silentLog } from '#shared/log.ts'
import { replicationPolicy } from '#shared/messages/policy.ts'
import { systemRng } from '#shared/rng.ts'
import { openAgentState } from '../state/agent-state.ts'
import type { PeerLinks } from '../stream/source/peer-links.ts'
import { Source } from './source.ts'

const F = 30_000
const dir = mkdtempSync(join(tmpdir(), 'hotsite-flow-'))
afterAll(() => rmSync(dir, { recursive: true, force: true }))
const MiB = 1 << 20

/** A source on a clock that stands still until it is moved, with one point at the target. */
async function sourceAt(time: { nowMs: number }) {
  const { engine, seal } = engineWith({ capturedAtMs: time.nowMs })
  const events: string[] = []
  const source = new Source(
    {
      vmId: vmId.parse('vm-1'),
      fabricVmId: fabricVmId.parse('fabric-1'),
      epoch: 1,
      target: { serverId: serverId.parse('target'), host: 'target', port: 1, certificatePem: '' },
      ticket: '',
      policy: replicationPolicy.parse({ copyFrequencySeconds: F / 1000 }),
      notBeforeMs: null,
      paused: false,
      seenOff: false,
      lastCycle: null,
      totals: { changedBytes: 0, sentBytes: 0, cycles: 0 },
      resync: null,
      heldPoints: [],
      lastAppPointMs: null,
      catchUp: null,
      writes: { recent: [], days: [] },
    },
    {
      engine,
      links: {} as PeerLinks,
      state: openAgentState(join(dir, 'state.db')),
      clock: { now: () => time.nowMs, monotonicMs: () => time.nowMs, sleep: () => new Promise(() => {}) },
      rng: systemRng,
      log: silentLog,
      crashPoint: noCrash,
      raise: ({ code }) => events.push(code),
      publish: () => {},
    },
  )
  await source.refresh()
  source.setServed(true)
  return { source, seal, events }
}

function engineWith(first: { capturedAtMs: number }) {
  const state: SourceVmState = {
    vmId: vmId.parse('vm-1'),
    fabricVmId: fabricVmId.parse('fabric-1'),
    epoch: 1,
    sealedSeq: 1,
    ackedSeq: 1,
    ackedCapturedAtMs: first.capturedAtMs,
    bufferedBytes: 0,
    needsSync: null,
    ackedLayout: null,
    owed: [],
    found: null,
    proof: [],
  }
  return {
    engine: { state: async () => state } as Partial<CaptureEngine> as CaptureEngine,
    seal: (seq: number, capturedAtMs: number, storedBytes: number): SealedDelta => ({
      vmId: state.vmId,
      epoch: 1,
      seq,
      firstSeq: seq,
      baseSeq: seq - 1,
      capturedAtMs,
      consistency: 'crash',
      disks: [],
      manifest: Buffer.alloc(0),
      stats: {
        scannedBytes: 0,
        changedBlocks: 0,
        changedBytes: 0,
        storedBytes,
        freezeMs: 0,
        captureMs: 0,
        storedShare: null,
        suspect: '',
      },
    }),
  }
}

test('a delta that took two thirds of the copy frequency has arrived: no breach is in sight', async () => {
  const time = { nowMs: 1_000_000 }
  const { source, seal, events } = await sourceAt(time)
  for (let seq = 2; seq < 8; seq++) {
    time.nowMs += F
    source.flow.sealed(seal(seq, time.nowMs, 20 * MiB), F)
    time.nowMs += 20_000
    source.flow.acknowledged(seq)
    // The engine is asked again only afterwards.
    source.flow.transferred(20 * MiB, 20_000)
    time.nowMs -= 20_000
    expect(source.flow.forecast).toMatchObject({ breachAtMs: null })
    Object.assign(await source.refresh(), { ackedSeq: seq, ackedCapturedAtMs: time.nowMs })
  }
  expect(events).toEqual([])
})

test('a delta that is told of twice waits once', async () => {
  const time = { nowMs: 1_000_000 }
  const { source, seal } = await sourceAt(time)
  const delta = seal(2, time.nowMs, MiB)
  source.flow.load([delta])
  source.flow.sealed(delta, F)
  expect(source.flow.backlog.map(({ seq }) => seq)).toEqual([2])
})

test('a VM that is paused is foretold nothing', async () => {
  const time = { nowMs: 1_000_000 }
  const { source, seal } = await sourceAt(time)
  source.flow.sealed(seal(2, time.nowMs, MiB), F)
  source.setServed(false)
  time.nowMs += F
  source.flow.evaluate()
  expect(source.report().forecast?.breachAtMs).not.toBeNull()
  source.update({ paused: true })
  expect(source.report().forecast).toBeNull()
})
