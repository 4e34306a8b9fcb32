import type { StatusView, VmView } from '#coordinator/admin/views.ts'
import { type Paint, type Style, visible } from './text/style.ts'
import { type Cell, type Column, tableLines } from './text/table.ts'
import { durationText } from './text/units.ts'
import { copyFrequencyText, dataAgeCell, healthStyle, isProtected, stateWithProgress } from './vm-text.ts'

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
  { title: 'COPIED EVERY', align: 'right' },
  { title: 'POINTS', align: 'right' },
  { title: 'LAST DRILL' },
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
  const reasons = protectedVms.flatMap((vm) => vm.healthReasons.map((reason) => `${vm.name}: ${reason}`))
  if (reasons.length > 0) lines.push('', ...reasons.map((reason) => `  ${visible(reason)}`))
  lines.push(...attentionLines(status, paint), ...unprotectedLines(status.vms))
  return lines
}

function summary({ servers }: StatusView, vms: readonly VmView[]): string {
  const count = vms.length === 1 ? '1 VM protected' : `${vms.length} VMs protected`
  const ages = vms.flatMap(({ dataAgeMs }) => (dataAgeMs === null ? [] : [dataAgeMs]))
  const oldest = ages.length > 0 ? `, data at most ${durationText(Math.max(...ages))} old` : ''
  const without = vms.length - ages.length
  const none = without > 0 ? `, ${without} without a recovery point` : ''
  return `${count}${oldest}${none}, ${servers.connected} of ${servers.total} servers connected`
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
  if (needsAttention.length === 0) return []
  const items = needsAttention.flatMap(({ severity, text, command }) => {
    const [mark, style] = severities[severity]
    return [
      `  ${paint(style, mark)} ${visible(text)}`,
      ...(command ? [`    ${paint('bold', visible(command))}`] : []),
    ]
  })
  return ['', 'Needs a person:', ...items]
}

/** The names of a few: a long list is one command away. */
const namedAtMost = 5

function unprotectedLines(vms: readonly VmView[]): string[] {
  const names = vms.filter((vm) => !isProtected(vm)).map((vm) => vm.name)
  if (names.length === 0) return []
  const named = names.slice(0, namedAtMost).join(', ')
  const more = names.length > namedAtMost ? ' …' : ''
  return ['', visible(`Not protected: ${named}${more}  (hotsite vm protect VM)`)]
}
