import { type Paint, type Style, visible } from './style.ts'

export interface Column {
  readonly title: string
  readonly align?: 'left' | 'right'
  /** May be cut with "…" when the line is too wide; ids and numbers never are. */
  readonly shrinks?: boolean
}
export type Cell = string | { readonly text: string; readonly style: Style }

const gap = '  '
const narrowest = 6

/** Lines no wider than `width` as long as the columns that may shrink allow it. */
export function tableLines(
  columns: readonly Column[],
  rows: readonly (readonly Cell[])[],
  { width, paint }: { width: number; paint: Paint },
): string[] {
  const cells = rows.map((row) => row.map((cell) => (typeof cell === 'string' ? plain(cell) : cell)))
  const shown = cells.map((row) => row.map(({ text, style }) => ({ text: visible(text), style })))
  const widths = shrinkToFit(columns, naturalWidths(columns, shown), width)
  const line = (row: readonly { text: string; style: Style }[]) =>
    row
      .map(({ text, style }, index) =>
        paint(style, pad(text, widths[index] ?? 0, columns[index]?.align ?? 'left')),
      )
      .join(gap)
      .trimEnd()
  return [line(columns.map(({ title }) => ({ text: title, style: 'dim' as const }))), ...shown.map(line)]
}

function plain(text: string): { text: string; style: Style } {
  return { text, style: 'plain' }
}

function naturalWidths(columns: readonly Column[], rows: readonly (readonly { text: string }[])[]): number[] {
  return columns.map((column, index) =>
    Math.max(length(column.title), ...rows.map((row) => length(row[index]?.text ?? ''))),
  )
}

/** Takes one character at a time from the widest column that may shrink. */
function shrinkToFit(columns: readonly Column[], natural: readonly number[], width: number): number[] {
  const widths = [...natural]
  const total = () => widths.reduce((sum, each) => sum + each, 0) + gap.length * (widths.length - 1)
  while (total() > width) {
    let widest = -1
    for (const [index, column] of columns.entries()) {
      const each = widths[index] ?? 0
      if (column.shrinks && each > narrowest && each > (widths[widest] ?? 0)) widest = index
    }
    if (widest === -1) break
    widths[widest] = (widths[widest] ?? 0) - 1
  }
  return widths
}

function pad(text: string, width: number, align: 'left' | 'right'): string {
  const characters = [...text]
  const cut = characters.length > width ? `${characters.slice(0, Math.max(0, width - 1)).join('')}…` : text
  const blanks = ' '.repeat(Math.max(0, width - length(cut)))
  return align === 'right' ? blanks + cut : cut + blanks
}

function length(text: string): number {
  return [...text].length
}

/** "label  value" pairs under each other. */
export function factLines(facts: readonly (readonly [string, string])[], paint: Paint): string[] {
  const width = Math.max(...facts.map(([label]) => label.length))
  return facts.map(([label, value]) => `${paint('dim', label.padEnd(width))}  ${visible(value)}`)
}
