import { exitCodeOf } from '#coordinator/cli/exit-codes.ts'
import { adminErrors } from '#shared/errors/admin.ts'
import { channelErrors } from '#shared/errors/channel.ts'
import { fabricErrors } from '#shared/errors/fabric.ts'
import { flowErrors } from '#shared/errors/flow.ts'
import { generalErrors } from '#shared/errors/general.ts'
import { orchestrationErrors } from '#shared/errors/orchestration.ts'
import { replicationErrors } from '#shared/errors/replication.ts'
import { seedErrors } from '#shared/errors/seed.ts'
import type { ErrorEntry } from '#shared/errors/table.ts'
import { trustErrors } from '#shared/errors/trust.ts'

/** The areas in the order of docs/errors.md. */
export const errorAreas: Readonly<Record<string, Readonly<Record<string, ErrorEntry>>>> = {
  general: generalErrors,
  admin: adminErrors,
  trust: trustErrors,
  channel: channelErrors,
  replication: replicationErrors,
  flow: flowErrors,
  seed: seedErrors,
  fabric: fabricErrors,
  orchestration: orchestrationErrors,
}

/**
 * The page with the table of every area made new: what stands between `<!-- codes: AREA -->` and `<!-- end -->`.
 * Everything else on the page is prose and stays.
 */
export function withErrorTables(page: string): string {
  return page.replace(
    /(<!-- codes: (\w+) -->\n)[\s\S]*?(<!-- end -->)/g,
    (_, start: string, area: string, end: string) => {
      const entries = errorAreas[area]
      if (!entries) throw new Error(`docs/errors.md names the area "${area}", which does not exist`)
      return `${start}\n${areaTable(entries)}\n\n${end}`
    },
  )
}

/** Codes are sorted, so that a new one makes a difference of one line. */
function areaTable(entries: Readonly<Record<string, ErrorEntry>>): string {
  const rows = Object.keys(entries)
    .sort()
    .flatMap((code) => {
      const entry = entries[code]
      if (!entry) return []
      const cells = [
        `\`${code}\``,
        entry.cause,
        entry.action,
        entry.retryable ? 'yes' : 'no',
        String(exitCodeOf(code)),
      ]
      return [`| ${cells.map(cellText).join(' | ')} |`]
    })
  return [
    '| code | likely cause | what to do | retry helps | exit code |',
    '|---|---|---|---|---|',
    ...rows,
  ].join('\n')
}

function cellText(text: string): string {
  return text.replaceAll('|', '\\|').replaceAll('\n', ' ')
}
