import { expect, test } from 'vitest'
import { inventoryReport, replicationReport } from './reports.ts'

/** What a newer program would say: a field this one does not know, at every level. */
function ofNewerProgram(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(ofNewerProgram)
  if (value === null || typeof value !== 'object') return value
  const known = Object.entries(value).map(([name, part]) => [name, ofNewerProgram(part)])
  return { ...Object.fromEntries(known), saidSinceThen: { depth: 1 } }
}

const replication = {
  vmId: 'vm-1',
  epoch: 1,
  activity: 'synchronizing',
  cause: 'initial',
  sealedSeq: 0,
  ackedSeq: 0,
  newestCapturedAtMs: null,
  newestAckedCapturedAtMs: null,
  bufferedBytes: 0,
  progress: { doneBytes: 1, totalBytes: 2, secondsLeft: 3 },
  resync: {
    cause: 'initial',
    waitsFor: 'window',
    startsAtMs: 1,
    estimate: { compareBytes: 1, sendBytes: 1, seconds: 1 },
  },
  proof: [{ diskId: 'disk-0', sizeBytes: 1, percent: 1, provedAtMs: null, badBlocks: 0 }],
  forecast: { churnBytesPerSecond: 1, linkBytesPerSecond: 1, breachAtMs: 1 },
  catchUp: { pendingCycles: 1, sendBytes: 1, secondsLeft: 1 },
  owedPoints: 0,
  slowedByMs: 0,
  lastCycle: null,
  totals: { changedBytes: 0, sentBytes: 0, cycles: 0 },
  peerConnected: true,
  error: { code: 'x', message: 'y', atMs: 1 },
}

const inventory = {
  vmmServer: 'vmm',
  vmmVersion: '1',
  version: '1',
  clouds: [{ name: 'cloud', hosts: ['host'] }],
  hosts: [],
  networks: [{ name: 'net', logicalNetwork: 'net', subnets: [{ name: 'a', cidr: '10.0.0.0/8' }] }],
  classifications: [{ name: 'gold' }],
  quiescesGuests: true,
  vms: [
    {
      fabricVmId: 'vm',
      name: 'vm',
      host: 'host',
      generation: 2,
      operatingSystem: '',
      memoryBytes: 1,
      cpuCount: 1,
      disks: [{ diskId: 'disk-0', name: 'disk', sizeBytes: 1, boot: true }],
      nics: [{ name: 'nic', network: null }],
      classification: null,
      driverSettings: {},
      cloud: 'cloud',
      observation: { exists: true, power: 'off', heartbeatAgeMs: null, nics: [], fenced: false },
    },
  ],
  nowMs: 1,
}

test.each([
  ['replication', replicationReport, replication],
  ['inventory', inventoryReport, inventory],
])('a %s report of a newer agent is understood as far as it is known', (_kind, schema, report) => {
  const newer = ofNewerProgram({ ...report }) as { vms?: { driverSettings: unknown }[] }
  for (const vm of newer.vms ?? []) vm.driverSettings = {}
  expect(schema.parse(newer)).toEqual(report)
})
