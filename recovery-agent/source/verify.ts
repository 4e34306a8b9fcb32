/** The source's half of a verification: blocks are read again, whatever a tracker says of them. */
import type { CaptureOutcome } from '#recovery-agent/capture/port.ts'
import { assertNever } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { CommandResultOf } from '#shared/messages/commands.ts'
import type { Source } from './source.ts'

type Findings = Extract<CaptureOutcome, { kind: 'sealed' }>['findings']

/** Reads `percent` percent of the VM's disks and compares; what differs is in the delta it seals. Repeatable. */
export async function verifyAtSource(
  source: Source,
  percent: number,
): Promise<CommandResultOf<'replication.verify'>> {
  source.ensureCopies()
  const { engine, clock } = source.deps
  const { vmId } = source
  const startMs = clock.monotonicMs()
  source.markCapture(startMs)
  const outcome = await engine.verify(vmId, { percent })
  switch (outcome.kind) {
    case 'verified': {
      source.markSeen(startMs)
      source.flow.load(await engine.pendingDeltas(vmId))
      await source.refresh()
      const disks = outcome.disks.map(({ diskId, checkedBlocks, totalBlocks, untrackedBlocks }) => ({
        diskId,
        checkedBlocks,
        totalBlocks,
        untrackedBlocks,
      }))
      raiseFindings(
        source,
        disks.flatMap(({ diskId, untrackedBlocks: blocks }) =>
          blocks > 0 ? [{ kind: 'tracker-wrong' as const, diskId, blocks }] : [],
        ),
      )
      return { disks }
    }
    case 'buffer-full': {
      const { bufferedBytes, maxBytes } = outcome
      const message = `the buffer holds ${bufferedBytes} of ${maxBytes} bytes; VM ${vmId} cannot be verified now`
      throw new HotsiteError('buffer-full', message, { details: { bufferedBytes, maxBytes } })
    }
    case 'needs-sync': {
      await source.refresh()
      const message = `VM ${vmId} has to be synchronized first, cause ${outcome.cause}; that compares every block`
      throw new HotsiteError('resync-waits', message)
    }
    default:
      return assertNever(outcome)
  }
}

export function raiseFindings({ deps, vmId }: Source, findings: Findings): void {
  for (const { diskId, blocks } of findings) {
    const message = `VM ${vmId}: the tracker of ${diskId} called ${blocks} blocks unchanged that had changed; the whole disk was compared`
    deps.raise({ severity: 'warning', code: 'tracker-wrong', message, vmId })
  }
}
