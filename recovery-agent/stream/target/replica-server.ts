import type { Message } from '#shared/channel/message.ts'
import type { Channel } from '#shared/channel/port.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type VmId, vmId } from '#shared/ids.ts'
import { KeyedLocks } from '#shared/keyed-locks.ts'
import { limits } from '../../limits.ts'
import { Receiver, type ReceiverContext, type SourceMessage } from './receiver.ts'
import { type RepairRound, repairRound } from './repair-round.ts'

export type Interrupt = (error: HotsiteError) => Promise<void>

export interface ReplicaServer {
  /** Serves one source until its channel ends. */
  serve(channel: Channel): Promise<void>
  /**
   * Runs `task` while nothing is written to the replica of this VM. It may refuse a transfer that is going on by
   * calling `interrupt`.
   */
  exclusively<T>(vmId: VmId, task: (interrupt: Interrupt) => Promise<T>): Promise<T>
  /** Asks the source that is connected for damaged blocks; see repair-round.ts. */
  repair(vmId: VmId): Promise<RepairRound>
  /** Whether a delta of any VM is on its way in. */
  isReceiving(): boolean
}

export function createReplicaServer(options: Omit<ReceiverContext, 'locks' | 'claim'>): ReplicaServer {
  const locks = new KeyedLocks<VmId>()
  /** Who speaks for a VM: the last source that opened it with a valid ticket. */
  const speakers = new Map<VmId, Receiver>()
  const context: ReceiverContext = {
    ...options,
    locks,
    async claim(id, receiver) {
      const earlier = speakers.get(id)
      if (earlier !== receiver) await earlier?.letGo()
      speakers.set(id, receiver)
    },
  }
  return {
    async serve(channel) {
      const receivers = new Map<VmId, { receiver: Receiver; done: Promise<void> }>()
      try {
        for await (const message of channel.messages()) {
          if (message.kind === 'repairBlocks') {
            receivers.get(message.body.vmId as VmId)?.receiver.answered(message)
            continue
          }
          const about = subjectOf(message)
          if (!about) {
            options.log.warn('unexpected message from a source', {
              kind: message.kind,
              peer: channel.peer.name,
            })
            continue
          }
          const known = receivers.get(about.vmId) ?? open(about.vmId)
          if (known) await known.receiver.offer(about.message)
          else refuseBusy(channel, about.vmId)
        }
      } finally {
        for (const { receiver } of receivers.values()) receiver.end()
        await Promise.all([...receivers.values()].map(({ done }) => done))
        for (const [id, { receiver }] of receivers) if (speakers.get(id) === receiver) speakers.delete(id)
      }

      function open(id: VmId) {
        if (receivers.size >= limits.vmsPerChannel) return undefined
        const receiver = new Receiver(id, channel, context)
        const entry = { receiver, done: receiver.run() }
        receivers.set(id, entry)
        return entry
      }
    },
    repair: (id) =>
      repairRound(id, {
        store: options.store,
        ask: async (wanted) => await speakers.get(id)?.askRepair(wanted),
      }),
    isReceiving: () => [...speakers.values()].some((receiver) => receiver.isReceiving),
    exclusively: (id, task) =>
      locks.run(id, () => task(async (error) => await speakers.get(id)?.interrupt(error))),
  }
}

function subjectOf(message: Message): { vmId: VmId; message: SourceMessage } | undefined {
  switch (message.kind) {
    case 'openReplica':
    case 'deltaBegin':
    case 'blocks':
    case 'deltaEnd':
    case 'treeQuery':
    case 'backfills': {
      const id = vmId.safeParse(message.body.vmId)
      return id.success ? { vmId: id.data, message } : undefined
    }
    default:
      return undefined
  }
}

function refuseBusy(channel: Channel, id: VmId): void {
  const { code, message } = new HotsiteError(
    'agent-busy',
    `more than ${limits.vmsPerChannel} VMs on one channel`,
  )
  const body = { vmId: id, code, message, epoch: 0, seq: 0, diskIds: [] }
  channel.send({ kind: 'replicaRefusal', body }).catch(() => {})
}
