/** The capture worker: one engine with its buffer.db and its hypervisor, and a port to the main thread. */
import { type MessagePort, parentPort, type Transferable, workerData } from 'node:worker_threads'
import { defined } from '#shared/assert.ts'
import { PayloadSlots } from '#shared/blocks/payload-slots.ts'
import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { namingFullDisk } from '#shared/errors/disk-full.ts'
import { type ErrorDocument, errorDocument, HotsiteError } from '#shared/errors/hotsite-error.ts'
import { serverId, vaultId } from '#shared/ids.ts'
import type { LogFields, Logger } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { keysFromSecret } from '#shared/trust/keys.ts'
import { signManifest } from '#shared/trust/point-manifest.ts'
import * as ownHypervisors from '../hypervisor/open.ts'
import { openCaptureEngine } from './open-engine.ts'
import type { CaptureEngine, StoredBatch, SyncSession } from './port.ts'
import {
  type CallArgument,
  type CallResult,
  type CaptureWorkerConfig,
  type CaptureWorkerData,
  transferable,
  type WireBatch,
  type WorkerCall,
  type WorkerMessage,
  type WorkerRequest,
} from './worker-protocol.ts'

type HypervisorModule = Pick<typeof ownHypervisors, 'openHypervisor'>
type Handlers = { readonly [Call in WorkerCall]: (argument: CallArgument<Call>) => Promise<CallResult<Call>> }

const port = defined(parentPort, 'the port of the capture worker')
await run(port, workerData as CaptureWorkerData)

async function run(main: MessagePort, config: CaptureWorkerData): Promise<void> {
  const post = (message: WorkerMessage, moved: Transferable[] = []) => main.postMessage(message, moved)
  try {
    const slots = new PayloadSlots(config.payloadMemory)
    const engine = await openEngine(config, { log: logTo(post), slots })
    const handlers = handlersOf(engine, slots)
    main.on('message', (request: WorkerRequest) => void answer({ handlers, config }, request, post, main))
    post({ kind: 'ready' })
  } catch (error) {
    post({ kind: 'failed', error: named(error, config) })
  }
}

async function openEngine(
  config: CaptureWorkerConfig,
  { log, slots }: { readonly log: Logger; readonly slots: PayloadSlots },
): Promise<CaptureEngine> {
  const { dataDir, limits, hypervisorModule } = config
  const { openHypervisor } = hypervisorModule
    ? ((await import(hypervisorModule)) as HypervisorModule)
    : ownHypervisors
  const keys = keysFromSecret(config.secretKey)
  const clock = systemClock
  return openCaptureEngine({
    dataDir,
    limits,
    hypervisor: openHypervisor(config.hypervisor, { dataDir, clock, log }),
    vaultId: vaultId.parse(config.vaultId),
    serverId: serverId.parse(config.serverId),
    sign: (manifest) => signManifest(manifest, keys),
    clock,
    rng: systemRng,
    log,
    crashPoint: crashPointFromEnv(process.env),
    payloadMemory: (sizeBytes) => slots.take(sizeBytes),
    payloadSlots: slots,
  })
}

/** What is not said more precisely elsewhere is buffer.db. */
function named(error: unknown, { dataDir }: CaptureWorkerConfig): ErrorDocument {
  return errorDocument(namingFullDisk(error, { what: 'buffer.db', dir: dataDir }))
}

async function answer(
  { handlers, config }: { readonly handlers: Handlers; readonly config: CaptureWorkerConfig },
  { id, call, argument }: WorkerRequest,
  post: (message: WorkerMessage, moved?: Transferable[]) => void,
  main: MessagePort,
): Promise<void> {
  try {
    const handler = handlers[call] as (argument: unknown) => Promise<unknown>
    const value = await handler(argument)
    post({ kind: 'result', id, value }, transferable(batchesIn(call, value)))
  } catch (error) {
    post({ kind: 'error', id, error: named(error, config) })
  }
  if (call === 'close') main.close()
}

function handlersOf(engine: CaptureEngine, slots: PayloadSlots): Handlers {
  const sessions = new Map<number, SyncSession>()
  let nextSession = 1
  const sessionOf = (id: number) => {
    const session = sessions.get(id)
    if (session) return session
    throw new HotsiteError('synchronization-superseded', 'the synchronization has ended')
  }
  return {
    add: ({ vm, cause }) => engine.add(vm, cause),
    requireSync: ({ vmId, cause }) => engine.requireSync(vmId, cause),
    forget: ({ vmId }) => engine.forget(vmId),
    states: () => engine.states(),
    state: ({ vmId }) => engine.state(vmId),
    capture: ({ vmId, ...options }) => engine.capture(vmId, options),
    verify: ({ vmId, percent }) => engine.verify(vmId, { percent }),
    nextDelta: ({ vmId, afterSeq, throughSeq }) => engine.nextDelta(vmId, afterSeq, throughSeq),
    pendingDeltas: ({ vmId }) => engine.pendingDeltas(vmId),
    readBatch: async (key) => wire(await engine.readBatch(key), slots),
    readProved: async ({ vmId, request }) => wire(await engine.readProved(vmId, request), slots),
    acknowledge: ({ vmId, seq }) => engine.acknowledge(vmId, seq),
    owe: ({ vmId, range }) => engine.owe(vmId, range),
    owedDelta: ({ vmId, ...place }) => engine.owedDelta(vmId, place),
    exportSeed: (request) => engine.exportSeed(request),
    usage: () => engine.usage(),
    async openSync({ vmId, newestSeq }) {
      const opened = await engine.openSync(vmId, { newestSeq })
      const session = nextSession++
      sessions.set(session, opened)
      const { seq, baseSeq, capturedAtMs, consistency, freezeMs, disks } = opened
      return { session, seq, baseSeq, capturedAtMs, consistency, freezeMs, disks }
    },
    differingGroups: ({ session, targetNodes, ...range }) =>
      sessionOf(session).differingGroups({ ...range, targetNodes: Buffer.from(targetNodes.buffer) }),
    async differingBlocks({ session, targetLeaves, ...request }) {
      const leaves = Buffer.from(targetLeaves.buffer)
      const batches = await sessionOf(session).differingBlocks({ ...request, targetLeaves: leaves })
      return batches.map((batch) => wire(batch, slots))
    },
    countDiffering: ({ session, targetLeaves, ...request }) =>
      sessionOf(session).countDiffering({ ...request, targetLeaves: Buffer.from(targetLeaves.buffer) }),
    manifest: ({ session }) => sessionOf(session).manifest(),
    commit: ({ session }) => sessionOf(session).commit(),
    async closeSync({ session }) {
      await sessions.get(session)?.[Symbol.asyncDispose]()
      sessions.delete(session)
    },
    close: async () => await engine[Symbol.asyncDispose](),
  }
}

function wire({ payload, release: _, ...batch }: StoredBatch, slots: PayloadSlots): WireBatch {
  const given = slots.give(payload)
  if (given) return { ...batch, payload: given }
  // Both makers of payloads, SQLite and BatchBuilder.take, give each memory of its own.
  return { ...batch, payload: payload as Uint8Array<ArrayBuffer> }
}

function batchesIn(call: WorkerCall, value: unknown): readonly WireBatch[] {
  if (call === 'readBatch' || call === 'readProved') return [value as CallResult<'readBatch'>]
  return call === 'differingBlocks' ? (value as CallResult<'differingBlocks'>) : []
}

/** Lines go to the daemon's one log; errors lose their class on the way, so they go as documents. */
function logTo(post: (message: WorkerMessage) => void, bound: LogFields = {}): Logger {
  const line =
    (level: 'debug' | 'info' | 'warn' | 'error') =>
    (event: string, fields: LogFields = {}) => {
      const all = { ...bound, ...fields }
      const plain = 'error' in all ? { ...all, error: errorDocument(all['error']) } : all
      post({ kind: 'log', level, event, fields: plain })
    }
  return {
    debug: line('debug'),
    info: line('info'),
    warn: line('warn'),
    error: line('error'),
    with: (fields) => logTo(post, { ...bound, ...fields }),
  }
}
