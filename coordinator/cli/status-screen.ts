import type { StatusView, VmView } from '#coordinator/admin/views.ts'
import { type Paint, type Style, visible } from './text/style.ts'
import { type Cell, type Column, tableLines } from './text/table.ts'
import { durationText } from './text/units.ts'
import {
  copyFrequencyText,
  dataAgeCell,
  healthStyle,
  isMoved,
  isProtected,
  proofCell,
  stateWithProgress,
} from './vm-text.ts'

const verdicts: Readonly<Record<StatusView['verdict'], readonly [string, Style]>> = {
  safe: ['SAFE', 'good'],
  attention: ['ATTENTION', 'warn'],
  danger: ['DANGER', 'bad'],
  'nothing-protected': ['NOTHING PROTECTED', 'warn'],
}

const severities: Readonly<Record<'info' | 'warning' | 'critical', readonly [string, Style]>> = {
  info: ['·', 'dim'],
  warning: ['!', 'warn'],
  critical: ['✗', 'bad'],
}

const columns: readonly Column[] = [
  { title: 'VM', shrinks: true },
  { title: 'STATE', shrinks: true },
  { title: 'HEALTH' },
  { title: 'DATA AGE', align: 'right' },
  { title: 'EVERY', align: 'right' },
  { title: 'POINTS', align: 'right' },
  { title: 'PROVED' },
  { title: 'LAST DRILL', shrinks: true },
]

/** "Am I safe?" on one screen: the verdict, each VM, then what needs a person with the command that answers it. */
export function statusLines(status: StatusView, { width, paint }: { width: number; paint: Paint }): string[] {
  const protectedVms = status.vms.filter(isProtected)
  const [word, style] = verdicts[status.verdict]
  const lines = [
    `${paint(style, word)}  ${visible(summary(status, protectedVms))}`,
    paint('dim', visible(footing(status))),
  ]
  if (protectedVms.length > 0) {
    const rows = protectedVms.map((vm) => vmRow(vm, status.nowMs))
    lines.push('', ...tableLines(columns, rows, { width, paint }))
  }
  const asked = new Set(status.needsAttention.map(({ text }) => text))
  const reasons = protectedVms
    .flatMap((vm) => vm.healthReasons.map((reason) => `${vm.name}: ${reason}`))
    .filter((reason) => !asked.has(reason))
  if (reasons.length > 0) lines.push('', ...reasons.map((reason) => `  ${visible(reason)}`))
  lines.push(...attentionLines(status, paint), ...unprotectedLines(status.vms, paint))
  return lines
}

function summary({ servers }: StatusView, vms: readonly VmView[]): string {
  const moved = vms.filter(isMoved).length
  const count = vms.length - moved
  const ages = vms.flatMap(({ dataAgeMs }) => (dataAgeMs === null ? [] : [dataAgeMs]))
  const without = vms.filter((vm) => vm.dataAgeMs === null && !isMoved(vm)).length
  const parts = [`${count === 1 ? '1 VM' : `${count} VMs`} protected`]
  if (ages.length > 0) parts.push(`data at most ${durationText(Math.max(...ages))} old`)
  if (without > 0) parts.push(`${without} without a recovery point`)
  if (moved > 0) parts.push(`${moved} failed over and not replicated`)
  return [...parts, `${servers.connected} of ${servers.total} servers connected`].join(', ')
}

function footing({ vault, version }: StatusView): string {
  return `${vault ? `vault ${vault}` : 'no vault yet'}, coordinator ${version}`
}

function vmRow(vm: VmView, nowMs: number): readonly Cell[] {
  return [
    vm.name,
    stateWithProgress(vm),
    { text: vm.health, style: healthStyle[vm.health] },
    dataAgeCell(vm),
    copyFrequencyText(vm),
    String(vm.points),
    proofCell(vm, nowMs),
    drillCell(vm, nowMs),
  ]
}

function drillCell({ lastDrill, testFailover }: VmView, nowMs: number): Cell {
  if (testFailover.state !== 'none') return { text: `test ${testFailover.state}`, style: 'warn' }
  if (!lastDrill) return { text: 'never', style: 'warn' }
  const when = `${durationText(nowMs - lastDrill.atMs)} ago`
  return lastDrill.ok ? `${when}, passed` : { text: `${when}, failed`, style: 'bad' }
}

function attentionLines({ needsAttention }: StatusView, paint: Paint): string[] {
  const urgent = needsAttention.filter(({ severity }) => severity !== 'info')
  const rest = needsAttention.filter(({ severity }) => severity === 'info')
  return [...itemLines('Needs a person:', urgent, paint), ...itemLines('When there is time:', rest, paint)]
}

function itemLines(title: string, items: StatusView['needsAttention'], paint: Paint): string[] {
  if (items.length === 0) return []
  const lines = items.flatMap(({ severity, text, command }) => {
    const [mark, style] = severities[severity]
    return [
      `  ${paint(style, mark)} ${visible(text)}`,
      ...(command ? [`    ${paint('bold', visible(command))}`] : []),
    ]
  })
  return ['', title, ...lines]
}

/** The names of a few: a long list is one command away. */
const namedAtMost = 5

function unprotectedLines(vms: readonly VmView[], paint: Paint): string[] {
  // One that is being protected has a job, and needs nobody.
  const names = vms.filter((vm) => !isProtected(vm) && vm.currentJob === null).map((vm) => vm.name)
  if (names.length === 0) return []
  const named = names.slice(0, namedAtMost).join(', ')
  const more = names.length > namedAtMost ? ' …' : ''
  const count = names.length === 1 ? '1 VM is not protected' : `${names.length} VMs are not protected`
  return [
    '',
    `${paint('warn', count)}: ${visible(named)}${more}`,
    `    ${paint('bold', visible(`hotsite vm protect ${names.length === 1 ? (names[0] ?? 'VM') : 'VM'}`))}`,
  ]
}
