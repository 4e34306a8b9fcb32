/** "Am I safe?": one verdict, and what needs a person, most urgent first, with the command that answers it. */
import { renewalDueAtMs } from '#shared/trust/membership-renewal.ts'
import type { Health } from './health.ts'
import { operationWords } from './operation-words.ts'
import { describeMs } from './quantities.ts'

export type Verdict = 'safe' | 'attention' | 'danger' | 'nothing-protected'

/** What needs a person urgently is never under a green word, whatever the health of the VMs. */
export function verdictOf(healths: readonly Health[], attention: readonly Attention[]): Verdict {
  if (healths.length === 0) return 'nothing-protected'
  if (healths.includes('critical')) return 'danger'
  const urgent = attention.some(({ severity }) => severity === 'critical')
  return urgent || healths.includes('warning') ? 'attention' : 'safe'
}

export interface Attention {
  readonly severity: 'info' | 'warning' | 'critical'
  readonly text: string
  readonly command: string | null
}

export interface StatusInput {
  readonly nowMs: number
  readonly drillDueMs: number
  readonly clockSkewWarnMs: number
  readonly vms: readonly {
    readonly name: string
    readonly state: string
    readonly health: Health
    /** The worst first. */
    readonly healthFindings: readonly {
      readonly severity: 'warning' | 'critical'
      readonly text: string
      readonly command: string | null
    }[]
    readonly testFailover: { readonly state: string }
    readonly lastDrill: { readonly atMs: number; readonly ok: boolean } | null
  }[]
  readonly servers: readonly {
    readonly name: string
    readonly kind: string
    readonly connected: boolean
    readonly clockSkewMs: number | null
    readonly membershipIssuedAtMs: number
    readonly membershipExpiresAtMs: number
    /** Its membership was signed by a vault key that is no longer in force. */
    readonly outdated: boolean
  }[]
  readonly vaults: readonly {
    readonly name: string
    /** null: it has no certificate. */
    readonly certificateNotAfterMs: number | null
  }[]
  readonly waitingJobs: readonly {
    readonly jobId: string
    readonly kind: string
    readonly vmName: string
    readonly waitingFor: string | null
  }[]
}

const order = { critical: 0, warning: 1, info: 2 } as const
/** A month: time to plan a visit. */
const expiryWarnMs = 30 * 86_400_000

export function whatNeedsAPerson(input: StatusInput): readonly Attention[] {
  const found = [
    ...input.vms.flatMap((vm) => ofVm(vm, input)),
    ...input.servers.flatMap((server) => ofServer(server, input)),
    ...input.vaults.flatMap((vault) => ofVault(vault, input)),
    ...input.waitingJobs.map(ofWaitingJob),
  ]
  return found.toSorted((a, b) => order[a.severity] - order[b.severity])
}

function ofVm(vm: Vm, { nowMs, drillDueMs }: StatusInput): readonly Attention[] {
  const [first, ...others] = vm.healthFindings
  const items: Attention[] = first ? [ofFirst(vm, first)] : []
  for (const { severity, text, command } of others)
    if (command && items.every((item) => item.command !== command))
      items.push({ severity, text: `${vm.name}: ${text}`, command })
  if (vm.testFailover.state === 'running' || vm.testFailover.state === 'cleaningUp')
    items.push({
      severity: 'info',
      text: `${vm.name}: a test failover waits to be cleaned up`,
      command: `hotsite failover cleanup-test ${vm.name}`,
    })
  else if (vm.state === 'protected') items.push(...ofDrill(vm, nowMs, drillDueMs))
  return items
}

type Vm = StatusInput['vms'][number]

/** A finding with a command of its own, a state that waits for a person, or something to look at. */
function ofFirst(vm: Vm, { severity, text, command }: Vm['healthFindings'][number]): Attention {
  const answer = answers[vm.state]
  const fallback = answer ? `hotsite ${answer} ${vm.name}` : null
  const look = severity === 'critical' ? `hotsite vm show ${vm.name}` : null
  return { severity, text: `${vm.name}: ${text}`, command: command ?? fallback ?? look }
}

/** The one command that leads out of a state in which a VM waits for a person. */
const answers: Readonly<Record<string, string>> = {
  paused: 'vm resume',
  failoverFailed: 'failover unplanned',
  failedOver: 'failover commit',
  committed: 'failover reverse',
}

function ofDrill({ name, lastDrill }: Vm, nowMs: number, drillDueMs: number): readonly Attention[] {
  const command = `hotsite failover test ${name}`
  if (!lastDrill) return [{ severity: 'info', text: `${name}: failover was never tested`, command }]
  if (!lastDrill.ok) return [{ severity: 'warning', text: `${name}: the last test failover failed`, command }]
  const ageMs = nowMs - lastDrill.atMs
  if (ageMs <= drillDueMs) return []
  return [{ severity: 'info', text: `${name}: last tested ${describeMs(ageMs)} ago`, command }]
}

function ofServer(
  server: StatusInput['servers'][number],
  { nowMs, clockSkewWarnMs }: StatusInput,
): readonly Attention[] {
  const { name, kind, connected, outdated, clockSkewMs } = server
  const what = `${kind} ${name}`
  const command = `hotsite register --kind ${kind} --config FILE --credentials FILE --certificate FILE`
  if (outdated) {
    const text = `${what} must register again: the vault key was regenerated`
    return [{ severity: 'critical', text, command }]
  }
  const items: Attention[] = []
  if (!connected)
    items.push({
      severity: 'warning',
      text: `${what} is not connected`,
      command: `hotsite server show ${name}`,
    })
  if (clockSkewMs !== null && Math.abs(clockSkewMs) > clockSkewWarnMs)
    items.push({
      severity: 'warning',
      text: `the clock of ${what} is off by ${describeMs(Math.abs(clockSkewMs))}`,
      command: null,
    })
  const ending = ofMembership(server, nowMs)
  if (ending) items.push({ ...ending, command })
  return items
}

function ofMembership(
  { name, kind, membershipIssuedAtMs, membershipExpiresAtMs }: StatusInput['servers'][number],
  nowMs: number,
): Omit<Attention, 'command'> | undefined {
  const what = `the membership of ${kind} ${name}`
  if (nowMs >= membershipExpiresAtMs)
    return { severity: 'critical', text: `${what} has ended; it is refused until it registers again` }
  // Not before a registration would be taken as a renewal: the command named must work.
  const dueAtMs = renewalDueAtMs({ issuedAtMs: membershipIssuedAtMs, expiresAtMs: membershipExpiresAtMs })
  if (nowMs < Math.max(dueAtMs, membershipExpiresAtMs - expiryWarnMs)) return undefined
  const left = describeMs(membershipExpiresAtMs - nowMs)
  return { severity: 'warning', text: `${what} ends in ${left}; register it again, its daemon stopped` }
}

/** Registered servers do not need it; new ones, and those that must register again, do. */
function ofVault(
  { name, certificateNotAfterMs }: StatusInput['vaults'][number],
  { nowMs }: StatusInput,
): readonly Attention[] {
  if (certificateNotAfterMs === null || certificateNotAfterMs - nowMs >= expiryWarnMs) return []
  const left = certificateNotAfterMs - nowMs
  const text =
    left > 0
      ? `the certificate of vault ${name} ends in ${describeMs(left)}; no server can register after that`
      : `the certificate of vault ${name} has ended: no server can register`
  return [{ severity: 'warning', text, command: `hotsite vault set-certificate ${name} --certificate FILE` }]
}

function ofWaitingJob({ jobId, kind, vmName, waitingFor }: StatusInput['waitingJobs'][number]): Attention {
  const text = `${operationWords(kind)} of ${vmName} waits: ${waitingFor ?? 'for an agent'}`
  return { severity: 'warning', text, command: `hotsite job show ${jobId}` }
}
