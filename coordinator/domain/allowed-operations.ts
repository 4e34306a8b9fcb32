import { assertNever } from '#shared/assert.ts'
import { isReplicating, type Protection, protectionText } from './protection.ts'
import type { TestFailover } from './test-failover.ts'

export const operations = [
  'unprotect',
  'setPolicy',
  'pause',
  'resume',
  'resync',
  'verify',
  'exportSeed',
  'importSeed',
  'testFailover',
  'cleanupTest',
  'plannedFailover',
  'unplannedFailover',
  'changePoint',
  'commit',
  'reverse',
] as const
export type VmOperation = (typeof operations)[number]
/** `protect` makes the protected VM, so it has no state to be judged by; so does the first `exportSeed`. */
export type Operation = VmOperation | 'protect'

export type OperationVerdict =
  | { readonly allowed: true }
  | { readonly allowed: false; readonly reason: string }

export interface OperationInput {
  readonly protection: Protection
  readonly test: TestFailover
  /** Recovery points complete at the target. */
  readonly pointCount: number
}

/** What may be asked of a VM that nobody protects. */
export const plainOperations = ['protect', 'exportSeed'] as const satisfies readonly Operation[]

const yes: OperationVerdict = { allowed: true }
const no = (reason: string): OperationVerdict => ({ allowed: false, reason })

/** Everything that may be asked of a VM in this state, with the reason for what may not. */
export function judgeOperations(input: OperationInput): Readonly<Record<VmOperation, OperationVerdict>> {
  const verdicts = operations.map((operation) => [operation, judge(operation, input)] as const)
  return Object.fromEntries(verdicts) as Record<VmOperation, OperationVerdict>
}

export function allowedOperations(input: OperationInput): readonly VmOperation[] {
  return operations.filter((operation) => judge(operation, input).allowed)
}

export function judge(operation: VmOperation, input: OperationInput): OperationVerdict {
  const { protection, test } = input
  const whileNot = `the VM is ${protectionText(protection)}`
  switch (operation) {
    case 'unprotect':
      return judgeUnprotect(input)
    case 'setPolicy':
      return isReplicating(protection) ? yes : no(whileNot)
    case 'resync':
    case 'pause':
      return protection.kind === 'protected' || protection.kind === 'resynchronizing' ? yes : no(whileNot)
    case 'verify':
      return judgeVerify(input)
    case 'exportSeed':
    case 'importSeed':
      return protection.kind === 'awaitingSeed' ? yes : no(whileNot)
    case 'resume':
      return protection.kind === 'paused' ? yes : no(whileNot)
    case 'cleanupTest':
      return test.kind === 'none' ? no('no test failover is there to clean up') : yes
    case 'testFailover':
      return judgeTest(input)
    case 'plannedFailover':
      return judgePlanned(input)
    case 'unplannedFailover':
      return judgeUnplanned(input)
    case 'changePoint':
      if (protection.kind !== 'failedOver') return no(whileNot)
      return input.pointCount > 1 ? yes : no('there is no other recovery point')
    case 'commit':
      return protection.kind === 'failedOver' ? beforeTestGone(test) : no(whileNot)
    case 'reverse':
      return protection.kind === 'committed' ? beforeTestGone(test) : no(whileNot)
    default:
      return assertNever(operation)
  }
}

/** What removes or replaces the replica must not pull it from under a running test. */
function beforeTestGone(test: TestFailover): OperationVerdict {
  return test.kind === 'none' ? yes : no('a test failover is waiting to be cleaned up')
}

function judgeUnprotect({ protection, test }: OperationInput): OperationVerdict {
  switch (protection.kind) {
    case 'failedOver':
      return no('the failover waits for its commit, and the VM runs on the replica')
    case 'failingOver':
    case 'reversing':
      return no(`the VM is ${protectionText(protection)}`)
    // A removal that broke off is asked for again.
    case 'disabling':
    case 'enabling':
    case 'awaitingSeed':
    case 'initialReplication':
    case 'protected':
    case 'paused':
    case 'resynchronizing':
    case 'failoverFailed':
    case 'committed':
      return beforeTestGone(test)
    default:
      return assertNever(protection)
  }
}

/** A resynchronization compares everything itself, and what it replaces meanwhile would look like damage. */
function judgeVerify({ protection, pointCount }: OperationInput): OperationVerdict {
  if (protection.kind !== 'protected' && protection.kind !== 'paused')
    return no(`the VM is ${protectionText(protection)}`)
  return pointCount > 0 ? yes : no('no recovery point is complete at the target yet')
}

function judgeTest({ protection, test, pointCount }: OperationInput): OperationVerdict {
  if (test.kind !== 'none') return no('a test failover is waiting to be cleaned up')
  if (protection.kind === 'resynchronizing') return no('the VM is being resynchronized')
  if (!isReplicating(protection)) return no(`the VM is ${protectionText(protection)}`)
  return pointCount > 0 ? yes : no('no recovery point is complete at the target yet')
}

function judgePlanned({ protection, test, pointCount }: OperationInput): OperationVerdict {
  if (protection.kind === 'paused')
    return no('replication is paused: resume it first, or nothing is lost only by luck')
  if (protection.kind !== 'protected') return no(`the VM is ${protectionText(protection)}`)
  if (pointCount === 0) return no('no recovery point is complete at the target yet')
  return beforeTestGone(test)
}

/** The one that must work in a disaster: also while paused, resynchronizing, or with a test left running. */
function judgeUnplanned({ protection, pointCount }: OperationInput): OperationVerdict {
  if (!isReplicating(protection) && protection.kind !== 'failoverFailed')
    return no(`the VM is ${protectionText(protection)}`)
  return pointCount > 0 ? yes : no('no recovery point is complete at the target yet')
}
