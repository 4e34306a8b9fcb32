import { type Command, InvalidArgumentError, Option } from 'commander'
import type { PolicyPatch } from '#coordinator/admin/policy-patch.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { parseDurationSeconds, parseSizeBytes } from '../text/units.ts'
import { parseThrottleWindow, parseWeeklyWindow, type ThrottleWindow } from '../text/weekly-window.ts'

export interface PolicyOptions {
  readonly copyFrequency?: PolicyPatch['copyFrequencySeconds']
  readonly retentionPoints?: number
  readonly retentionInterval?: number
  readonly appConsistent?: number
  readonly compression?: boolean
  readonly throttle?: number
  /** false: `--no-throttle-windows`. */
  readonly throttleWindows?: false
  readonly throttleWindow?: readonly ThrottleWindow[]
  readonly timeZone?: string
  readonly resync?: PolicyPatch['resync']
  readonly resyncWindow?: NonNullable<PolicyPatch['resyncWindow']>
  readonly proofHours?: number
}

export function addPolicyOptions(command: Command): Command {
  return command
    .option('--copy-frequency <time>', 'how often changes are copied: 30s, 5m or 15m', copyFrequency)
    .option(
      '--retention-points <n>',
      'recovery points kept besides the newest one: 0 to 15',
      wholeNumber(0, 15),
    )
    .option('--retention-interval <time>', 'shortest time between two kept points: 0 to 1d', interval)
    .option(
      '--app-consistent <hours>',
      'application-consistent point every 1 to 12 hours, on hosts whose guests can be asked (libvirt); 0: never',
      wholeNumber(0, 12),
    )
    .addOption(new Option('--compression', 'compress what is sent'))
    .addOption(new Option('--no-compression', 'send as it is'))
    .option('--throttle <size>', 'most that is sent in a second, as 10MiB; 0: no limit', size)
    .option(
      '--throttle-window <window>',
      'another throttle at some hours, as "mon-fri 08:00-18:00 5MiB"; repeat for more, the first that fits counts',
      (text: string, before: readonly ThrottleWindow[] = []) => [...before, parseThrottleWindow(text)],
    )
    .addOption(new Option('--no-throttle-windows', 'the same throttle at all hours').default(undefined))
    .option('--time-zone <zone>', 'clock the windows are read on, as Europe/Berlin; UTC at first')
    .addOption(
      new Option(
        '--resync <when>',
        'when a resynchronization that nobody asked for sends: now, in the window, or when asked to',
      ).choices(['now', 'window', 'ask']),
    )
    .option(
      '--resync-window <window>',
      'hours for it, as "daily 18:00-06:00"; says --resync window',
      parseWeeklyWindow,
    )
    .option(
      '--proof-hours <n>',
      'every block is read again and proved on both sides within so many hours; 0: only by hotsite vm verify',
      wholeNumber(0, 8760),
    )
}

/** Only what was given: the rest stays as it is, or as the policy of the cloud says. */
export function policyFrom(options: PolicyOptions): PolicyPatch {
  return {
    ...(options.copyFrequency === undefined ? {} : { copyFrequencySeconds: options.copyFrequency }),
    ...(options.retentionPoints === undefined ? {} : { retentionPoints: options.retentionPoints }),
    ...(options.retentionInterval === undefined
      ? {}
      : { retentionIntervalSeconds: options.retentionInterval }),
    ...(options.appConsistent === undefined ? {} : { appConsistentHours: options.appConsistent }),
    ...(options.compression === undefined ? {} : { compression: options.compression }),
    ...(options.throttle === undefined ? {} : { throttleBytesPerSecond: options.throttle }),
    ...throttleWindowsFrom(options),
    ...(options.timeZone === undefined ? {} : { timeZone: options.timeZone }),
    ...resyncFrom(options),
    ...(options.proofHours === undefined ? {} : { proofHours: options.proofHours }),
  }
}

function throttleWindowsFrom({ throttleWindow, throttleWindows }: PolicyOptions): PolicyPatch {
  if (throttleWindow === undefined) return throttleWindows === false ? { throttleWindows: [] } : {}
  if (throttleWindows === false)
    throw new HotsiteError(
      'usage-invalid',
      '--throttle-window and --no-throttle-windows contradict each other',
    )
  return { throttleWindows: [...throttleWindow] }
}

/** Who names a window wants it used. */
function resyncFrom({ resync, resyncWindow }: PolicyOptions): PolicyPatch {
  if (resyncWindow === undefined) return resync === undefined ? {} : { resync }
  if (resync !== undefined && resync !== 'window')
    throw new HotsiteError('usage-invalid', `--resync-window has no effect with --resync ${resync}`)
  return { resync: 'window', resyncWindow }
}

function copyFrequency(text: string): 30 | 300 | 900 {
  const seconds = parseDurationSeconds(text)
  if (seconds === 30 || seconds === 300 || seconds === 900) return seconds
  throw new InvalidArgumentError('Choose 30s, 5m or 15m.')
}

function interval(text: string): number {
  const seconds = parseDurationSeconds(text)
  if (seconds !== undefined && seconds <= 86_400) return seconds
  throw new InvalidArgumentError('Give a time from 0 to one day, as 30s, 10m or 1h.')
}

function size(text: string): number {
  const sizeBytes = parseSizeBytes(text)
  if (sizeBytes !== undefined) return sizeBytes
  throw new InvalidArgumentError('Give a size, as 500KiB or 10MiB.')
}

export function wholeNumber(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
    if (value >= least && value <= most) return value
    throw new InvalidArgumentError(`Give a whole number from ${least} to ${most}.`)
  }
}
