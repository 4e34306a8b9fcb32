import type { ReplicationPolicy } from '#shared/messages/policy.ts'
import type { CloudView, JobView, PointView, ServerView, VaultView, VmView } from '../views.ts'

const startMs = Date.UTC(2030, 0, 1)
export const sampleNowMs = startMs + 3_600_000
const fiveMinutes: ReplicationPolicy = {
  copyFrequencySeconds: 300,
  retentionPoints: 3,
  retentionIntervalSeconds: 3600,
  appConsistentHours: 0,
  compression: true,
  throttleBytesPerSecond: 0,
  throttleWindows: [],
  timeZone: 'UTC',
  resync: 'now',
  resyncWindow: null,
  proofHours: 168,
}

export function sampleVault(fields: Partial<VaultView> = {}): VaultView {
  return {
    vaultId: 'vault-1',
    name: 'main',
    region: 'eu-central',
    subscription: 'sub-1',
    createdAtMs: startMs,
    keyGeneration: 1,
    publicKeyBase64: 'AAAA',
    certificate: null,
    ...fields,
  }
}

export function sampleServer(fields: Partial<ServerView> = {}): ServerView {
  return {
    serverId: 'server-1',
    kind: 'agent',
    name: 'host-a',
    host: '10.0.0.1',
    version: '0.1.0',
    registeredAtMs: startMs,
    connected: true,
    lastSeenAtMs: sampleNowMs,
    clockSkewMs: 12,
    bytesReceived: 2048,
    bytesSent: 4096,
    ...fields,
  }
}

export function sampleCloud(fields: Partial<CloudView> = {}): CloudView {
  return {
    vmmServer: 'vmm-a',
    cloud: 'gold',
    hosts: [{ name: 'host-a', agentConnected: true }],
    vmCount: 1,
    role: 'none',
    pairing: null,
    ...fields,
  }
}

export function sampleVm(fields: Partial<VmView> = {}): VmView {
  return {
    vmId: 'vm-1',
    fabricVmId: 'fabric-1',
    name: 'shop',
    vmmServer: 'vmm-a',
    cloud: 'gold',
    host: 'host-a',
    power: 'running',
    state: 'protected',
    stateText: 'protected',
    health: 'normal',
    healthReasons: [],
    healthFindings: [],
    allowedOperations: ['pause', 'testFailover', 'plannedFailover', 'unplannedFailover'],
    epoch: 1,
    dataAgeMs: 42_000,
    testFailover: { state: 'none', notes: null, startedAtMs: null },
    lastDrill: { atMs: sampleNowMs - 86_400_000, ok: true, notes: 'booted' },
    source: { vmmServer: 'vmm-a', host: 'host-a' },
    target: { vmmServer: 'vmm-b', host: 'host-b' },
    policy: { ...fiveMinutes },
    points: 2,
    progress: null,
    resync: null,
    proof: [],
    forecast: null,
    catchUp: null,
    owedPoints: 0,
    slowedByMs: 0,
    mergeDebtBytes: 0,
    seed: null,
    lastCycle: {
      seq: 7,
      capturedAtMs: sampleNowMs - 42_000,
      changedBytes: 1 << 20,
      sentBytes: 1 << 19,
      freezeMs: 3,
    },
    totals: { changedBytes: 1 << 24, sentBytes: 1 << 23, cycles: 7 },
    currentJob: null,
    ...fields,
  }
}

export function samplePoint(seq: number, fields: Partial<PointView> = {}): PointView {
  const capturedAtMs = sampleNowMs - (8 - seq) * 300_000
  return {
    name: `1.${seq}`,
    ageMs: sampleNowMs - capturedAtMs,
    epoch: 1,
    seq,
    capturedAtMs,
    completedAtMs: capturedAtMs + 1_500,
    consistency: 'crash',
    attested: true,
    pinned: false,
    overlays: [],
    suspect: null,
    damaged: false,
    keptBecause: 'spaced',
    changedBytes: 1 << 20,
    storedBytes: 1 << 20,
    roots: [],
    ...fields,
  }
}

export function sampleJob(fields: Partial<JobView> = {}): JobView {
  return {
    jobId: 'job-1',
    kind: 'protect',
    vm: 'shop',
    state: 'running',
    createdAtMs: startMs,
    endedAtMs: null,
    steps: [],
    error: null,
    ...fields,
  }
}
