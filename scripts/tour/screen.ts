/** What a person sees of the tour. With --json everything but the last line goes to standard error. */
export interface Screen {
  chapter(title: string): void
  /** The command a person would type for what happens next. */
  command(text: string): void
  /** Something that was observed, not merely done. */
  seen(text: string): void
  note(text: string): void
  table(rows: readonly (readonly [string, string])[]): void
}

export function openScreen(out: NodeJS.WriteStream): Screen {
  const styled = out.isTTY && !process.env['NO_COLOR']
  const style = (code: string, text: string) => (styled ? `\x1b[${code}m${text}\x1b[0m` : text)
  const line = (text: string) => out.write(`${text}\n`)
  let chapters = 0
  return {
    chapter(title) {
      chapters += 1
      line(`\n${style('1', `${chapters}. ${title}`)}`)
    },
    command: (text) => line(`   ${style('36', `$ hotsite ${text}`)}`),
    seen: (text) => line(`   ${style('32', '✓')} ${text}`),
    note: (text) => line(`   ${style('2', text)}`),
    table(rows) {
      const width = Math.max(...rows.map(([name]) => name.length))
      line('')
      for (const [name, value] of rows) line(`   ${name.padEnd(width)}  ${style('1', value)}`)
    },
  }
}

const MIB = 1024 * 1024

export const mib = (bytes: number): string => `${(bytes / MIB).toFixed(1)} MiB`
export const seconds = (ms: number): string => `${(ms / 1000).toFixed(1)} s`
