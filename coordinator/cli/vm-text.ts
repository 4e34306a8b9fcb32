import type { VmView } from '#coordinator/admin/views.ts'
import { proofText, shortProof } from '#coordinator/domain/proof.ts'
import { describeMs, describeRate } from '#coordinator/domain/quantities.ts'
import { pendingResyncText } from '#coordinator/domain/resync-words.ts'
import type { DiskProof } from '#shared/messages/reports.ts'
import { operationCommand } from './operation-text.ts'
import { policyText } from './policy-text.ts'
import type { Paint, Style } from './text/style.ts'
import { type Cell, type Column, factLines } from './text/table.ts'
import { durationText, sizeText, timeText } from './text/units.ts'

export const healthStyle: Readonly<Record<VmView['health'], Style>> = {
  none: 'dim',
  normal: 'good',
  warning: 'warn',
  critical: 'bad',
}

/** Beyond this many copy intervals the data is older than a person who set the policy expects. */
const lateAfterIntervals = 2
const badAfterIntervals = 4

/** The data age, coloured by how it stands to the copy frequency. */
export function dataAgeCell({ dataAgeMs, policy }: VmView): Cell {
  if (dataAgeMs === null) return '–'
  const intervals = policy ? dataAgeMs / (policy.copyFrequencySeconds * 1000) : 0
  const style: Style =
    intervals > badAfterIntervals ? 'bad' : intervals > lateAfterIntervals ? 'warn' : 'good'
  return { text: durationText(dataAgeMs), style }
}

export function copyFrequencyText({ policy }: VmView): string {
  return policy ? durationText(policy.copyFrequencySeconds * 1000) : '–'
}

export function isProtected(vm: VmView): boolean {
  return vm.vmId !== null
}

export const vmColumns: readonly Column[] = [
  { title: 'VM', shrinks: true },
  { title: 'CLOUD', shrinks: true },
  { title: 'HOST', shrinks: true },
  { title: 'POWER' },
  { title: 'STATE', shrinks: true },
  { title: 'HEALTH' },
  { title: 'DATA AGE', align: 'right' },
  { title: 'POINTS', align: 'right' },
  { title: 'PROVED' },
]

/** The worst disk: when it was last proved, or how far its first pass is. */
export function proofCell({ proof }: VmView, nowMs: number): Cell {
  const text = shortProof(proof as readonly DiskProof[], nowMs)
  if (proof.some(({ badBlocks }) => badBlocks > 0)) return { text, style: 'bad' }
  return text
}

export function vmRow(vm: VmView, nowMs: number): readonly Cell[] {
  return [
    vm.name,
    vm.cloud ? `${vm.vmmServer}/${vm.cloud}` : vm.vmmServer,
    vm.host,
    vm.power,
    stateWithProgress(vm),
    { text: vm.health === 'none' ? '–' : vm.health, style: healthStyle[vm.health] },
    dataAgeCell(vm),
    isProtected(vm) ? String(vm.points) : '–',
    proofCell(vm, nowMs),
  ]
}

/** After a failover the VM runs on its replica: its data has no age until replication is reversed. */
const movedStates: ReadonlySet<string> = new Set(['failedOver', 'failoverFailed', 'committed', 'reversing'])

/** Runs, or is to run, on the replica, and nothing is replicated. */
export function isMoved({ state }: VmView): boolean {
  return movedStates.has(state)
}

function dataAgeFact(vm: VmView): string {
  if (vm.dataAgeMs !== null) return durationText(vm.dataAgeMs)
  return isMoved(vm) ? 'nothing is replicated since the failover' : 'no recovery point yet'
}

/** "synchronizing 40 %" */
export function stateWithProgress({ stateText, progress }: VmView): string {
  if (!progress || progress.totalBytes === 0) return stateText
  return `${stateText} ${Math.floor((100 * progress.doneBytes) / progress.totalBytes)} %`
}

export function vmFacts(vm: VmView, { paint, nowMs }: { paint: Paint; nowMs: number }): string[] {
  const facts: (readonly [string, string])[] = [
    ['name', vm.name],
    ['id', vm.vmId ?? `${vm.fabricVmId} (not protected)`],
    ['place', `${vm.vmmServer}, ${vm.cloud ? `cloud ${vm.cloud}, ` : ''}host ${vm.host}, ${vm.power}`],
    ['state', stateWithProgress(vm)],
    ['health', [vm.health, ...vm.healthReasons].join('; ')],
  ]
  if (vm.policy) facts.push(['policy', policyText(vm.policy)])
  if (vm.source && vm.target) facts.push(['replicates', `${placeText(vm.source)} → ${placeText(vm.target)}`])
  if (isProtected(vm)) {
    facts.push(['data age', dataAgeFact(vm)])
    facts.push(['points', String(vm.points)])
    facts.push(['epoch', String(vm.epoch ?? '–')])
  }
  facts.push(...engineFacts(vm, nowMs), ...replicationFacts(vm), ...drillFacts(vm))
  const commands = vm.allowedOperations.map(operationCommand).join(', ')
  facts.push(['you may', commands || 'nothing at the moment'])
  return factLines(facts, paint)
}

function engineFacts(vm: VmView, nowMs: number): (readonly [string, string])[] {
  const facts = vm.proof.map(
    (disk) => ['proof', `${disk.diskId}: ${proofText(disk as DiskProof, nowMs)}`] as const,
  )
  const more: (readonly [string, string])[] = []
  if (vm.resync) more.push(['resync', pendingResyncText(vm.resync, nowMs)])
  if (vm.seed)
    more.push([
      'seed',
      `${vm.seed.folder} at the source, ${sizeText(vm.seed.bytes)}, ${timeText(vm.seed.exportedAtMs)}`,
    ])
  if (vm.forecast) more.push(['pace', paceText(vm.forecast)])
  if (vm.catchUp) more.push(['catching up', catchUpText(vm.catchUp)])
  if (vm.owedPoints > 0) more.push(['older points', owedText(vm.owedPoints)])
  const slowed = vm.slowedByMs > 0 ? `, +${durationText(vm.slowedByMs)} per cycle` : ''
  if (vm.mergeDebtBytes > 0 || slowed)
    more.push(['merges', `${sizeText(vm.mergeDebtBytes)} to do at the target${slowed}`])
  return [...facts, ...more]
}

/** Of the time the target was away; the newest came first. */
function owedText(count: number): string {
  return `${count} of the last outage ${count === 1 ? 'is' : 'are'} still being brought`
}

/** "12 copies wait, at most 310 MiB to send, about 4 min left" */
function catchUpText({ pendingCycles, sendBytes, secondsLeft }: NonNullable<VmView['catchUp']>): string {
  const left = secondsLeft === null ? '' : `, about ${describeMs(secondsLeft * 1000)} left`
  const waiting = pendingCycles === 1 ? '1 copy waits' : `${pendingCycles} copies wait`
  return `${waiting}, at most ${sizeText(sendBytes)} to send${left}`
}

function paceText({ churnBytesPerSecond, linkBytesPerSecond }: NonNullable<VmView['forecast']>): string {
  const link =
    linkBytesPerSecond === null ? 'link not measured yet' : `link ${describeRate(linkBytesPerSecond)}`
  return `changes ${describeRate(churnBytesPerSecond)}, ${link}`
}

/** "12 GiB of 20 GiB, about 4 min left" */
function progressText({ doneBytes, totalBytes, secondsLeft }: NonNullable<VmView['progress']>): string {
  const left = secondsLeft === null ? '' : `, about ${describeMs(secondsLeft * 1000)} left`
  return `${sizeText(doneBytes)} of ${sizeText(totalBytes)}${left}`
}

function replicationFacts({
  lastCycle,
  totals,
  progress,
  currentJob,
}: VmView): (readonly [string, string])[] {
  const facts: (readonly [string, string])[] = []
  if (progress) facts.push(['progress', progressText(progress)])
  if (lastCycle) {
    const volume = `${sizeText(lastCycle.changedBytes)} changed, ${sizeText(lastCycle.sentBytes)} sent`
    facts.push([
      'last cycle',
      `${timeText(lastCycle.capturedAtMs)}, ${volume}, frozen ${freezeText(lastCycle.freezeMs)}`,
    ])
  }
  if (totals)
    facts.push([
      'in all',
      `${totals.cycles === 1 ? '1 cycle' : `${totals.cycles} cycles`}, ${sizeText(totals.changedBytes)} changed, ${sizeText(totals.sentBytes)} sent`,
    ])
  if (currentJob) facts.push(['job', `${currentJob} (hotsite job watch ${currentJob})`])
  return facts
}

/** A freeze lasts milliseconds, and which ones they are is what matters. */
function freezeText(freezeMs: number): string {
  return freezeMs < 1_000 ? `${Math.round(freezeMs)} ms` : durationText(freezeMs)
}

function drillFacts({ testFailover, lastDrill }: VmView): (readonly [string, string])[] {
  const facts: (readonly [string, string])[] = []
  if (testFailover.state !== 'none') facts.push(['test failover', testFailover.state])
  if (lastDrill) {
    const notes = lastDrill.notes ? `: ${lastDrill.notes}` : ''
    facts.push(['last drill', `${timeText(lastDrill.atMs)}, ${lastDrill.ok ? 'passed' : 'failed'}${notes}`])
  }
  return facts
}

function placeText({ vmmServer, host }: { vmmServer: string; host: string }): string {
  return `${vmmServer}/${host}`
}
