import type { ReplicationReport } from '#shared/messages/reports.ts'
import { describeBytes, describeMs } from './quantities.ts'

export type PendingResync = NonNullable<ReplicationReport['resync']>

/** "resynchronization (tracker-lost) waits for approval: compares 20 GiB, sends about 310 MiB, about 4 min" */
export function pendingResyncText(resync: PendingResync, nowMs: number): string {
  const what = resync.cause === 'initial' ? 'the first copy' : `resynchronization (${resync.cause})`
  const estimate = resync.estimate ? `: ${estimateText(resync.estimate)}` : ''
  return `${what} ${waitsText(resync, nowMs)}${estimate}`
}

function waitsText({ waitsFor, startsAtMs }: PendingResync, nowMs: number): string {
  const when =
    startsAtMs === null ? '' : startsAtMs > nowMs ? `, in ${describeMs(startsAtMs - nowMs)}` : ', now'
  switch (waitsFor) {
    case 'estimating':
      return 'is being estimated'
    case 'start-time':
      return `waits for its time${when}`
    case 'window':
      return `waits for its window${when}`
    case 'approval':
      return 'waits for approval'
  }
}

/** "compares 20 GiB, sends about 310 MiB, about 4 min" */
export function estimateText({
  compareBytes,
  sendBytes,
  seconds,
}: NonNullable<PendingResync['estimate']>): string {
  return `compares ${describeBytes(compareBytes)}, sends about ${describeBytes(sendBytes)}, about ${describeMs(seconds * 1000)}`
}
