/**
 * Invariants broken on purpose, to see that the chaos runs would notice. Never part of a daemon: only fast-agent.ts
 * knows of it. I3 cannot be broken from outside the store, so that one is a mutation of its source (mutants.ts).
 */
import type { AgentOverrides } from '#recovery-agent/agent.ts'
import type { CaptureEngine } from '#recovery-agent/capture/port.ts'

export function breakInvariant(name: string | undefined): AgentOverrides {
  return name === 'I2' ? { wrapEngine: releaseBeforeAcknowledgement } : {}
}

/** The base is released as soon as the last batch was read for sending, instead of when the target has it. */
function releaseBeforeAcknowledgement(engine: CaptureEngine): CaptureEngine {
  const lastBatches = new Map<string, number>()
  return new Proxy(engine, {
    get(target, property) {
      if (property === 'nextDelta') {
        return async (...args: Parameters<CaptureEngine['nextDelta']>) => {
          const delta = await target.nextDelta(...args)
          const last = delta?.disks.findLast((disk) => disk.batchCount > 0)
          if (delta && last) lastBatches.set(`${delta.vmId} ${delta.seq} ${last.diskId}`, last.batchCount - 1)
          return delta
        }
      }
      if (property === 'readBatch') {
        return async (...args: Parameters<CaptureEngine['readBatch']>) => {
          const [{ vmId, seq, diskId, batch }] = args
          const stored = await target.readBatch(...args)
          if (lastBatches.get(`${vmId} ${seq} ${diskId}`) === batch) await target.acknowledge(vmId, seq)
          return stored
        }
      }
      const member = Reflect.get(target, property)
      return typeof member === 'function' ? member.bind(target) : member
    },
  })
}
