import { type ChildProcess, fork } from 'node:child_process'
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { z } from 'zod'
import { serverId, vaultId, vmId } from '#shared/ids.ts'
import type { AgentCommandKind, CommandRequest, CommandResultOf } from '#shared/messages/commands.ts'
import { type PointReport, pointReport } from '#shared/messages/reports.ts'
import { generateKeys } from '#shared/trust/keys.ts'
import { issueMembership } from '#shared/trust/membership.ts'
import { issueTicket } from '#shared/trust/ticket.ts'

export interface AgentSetUp {
  readonly name: string
  readonly dir: string
  readonly fabricRoot: string
  readonly vaultId: string
  readonly serverId: string
  readonly secretKey: string
  readonly membership: string
  readonly vaultPublicKey: string
}

export interface AgentCall {
  readonly callId: number
  readonly kind: AgentCommandKind | 'state' | 'points'
  readonly request: Readonly<Record<string, unknown>>
}

export interface AckedPoint {
  readonly seq: number
  readonly capturedAtMs: number | null
}

export interface AgentProcess extends AsyncDisposable {
  readonly pid: number
  readonly serverId: string
  readonly dir: string
  readonly listen: { readonly host: string; readonly port: number }
  readonly certificatePem: string
  command<Kind extends AgentCommandKind>(
    kind: Kind,
    request: CommandRequest<Kind>,
  ): Promise<CommandResultOf<Kind>>
  /** What it holds of a VM as a target. */
  points(vmId: string): Promise<readonly PointReport[]>
  /** The newest point the target acknowledged; 0: none yet. */
  ackedSeq(vmId: string): Promise<number>
  acked(vmId: string): Promise<AckedPoint>
}

export interface AgentPair extends AsyncDisposable {
  readonly source: AgentProcess
  readonly target: AgentProcess
  /** The vault's word that the source may send this VM to the target. */
  ticketFor(vm: string, epoch: number): string
}

/** Those of scripts/hotsite. */
const nodeOptions = ['--max-semi-space-size=4'] as const
const compileCache = fileURLToPath(new URL('../../node_modules/.cache/hotsite', import.meta.url))

const dayMs = 86_400_000
const reply = z.union([
  z.strictObject({
    ready: z.strictObject({
      listen: z.strictObject({ host: z.string(), port: z.int() }),
      certificatePem: z.string(),
    }),
  }),
  z.strictObject({ callId: z.int(), result: z.unknown() }),
  z.strictObject({ callId: z.int(), error: z.looseObject({ code: z.string(), message: z.string() }) }),
])

export async function startAgentPair(request: {
  dir: string
  fabricRoot: string
  sourceHost: string
  targetHost: string
}): Promise<AgentPair> {
  const vault = generateKeys()
  const ids = { vaultId: vaultId.parse('bench-vault') }
  const nowMs = Date.now()
  const setUp = (name: string): AgentSetUp => {
    const keys = generateKeys()
    const membership = issueMembership(
      {
        ...ids,
        serverId: serverId.parse(`server-${name}`),
        kind: 'agent',
        name,
        publicKey: keys.publicKey,
        issuedAtMs: nowMs,
        expiresAtMs: nowMs + dayMs,
        generation: 1,
      },
      vault.secretKey,
    )
    const base64 = (bytes: Uint8Array) => Buffer.from(bytes).toString('base64')
    return {
      name,
      dir: join(request.dir, name),
      fabricRoot: request.fabricRoot,
      ...ids,
      serverId: `server-${name}`,
      secretKey: base64(keys.secretKey),
      membership: base64(membership),
      vaultPublicKey: base64(vault.publicKey),
    }
  }
  const source = await startAgentProcess(setUp(request.sourceHost))
  const target = await startAgentProcess(setUp(request.targetHost))
  return {
    source,
    target,
    ticketFor(vm, epoch) {
      const scope = {
        ...ids,
        vmId: vmId.parse(vm),
        epoch,
        sourceServerId: serverId.parse(source.serverId),
        targetServerId: serverId.parse(target.serverId),
      }
      return Buffer.from(
        issueTicket({ ...scope, issuedAtMs: nowMs, expiresAtMs: nowMs + dayMs }, vault.secretKey),
      ).toString('base64')
    },
    async [Symbol.asyncDispose]() {
      await source[Symbol.asyncDispose]()
      await target[Symbol.asyncDispose]()
    },
  }
}

async function startAgentProcess(setUp: AgentSetUp): Promise<AgentProcess> {
  mkdirSync(setUp.dir, { recursive: true })
  const child = fork(fileURLToPath(new URL('./agent-process.ts', import.meta.url)), [JSON.stringify(setUp)], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
    execArgv: [...nodeOptions],
    // As the hotsite command does: without it every thread loads the compiler that takes the types away.
    env: { ...process.env, NODE_COMPILE_CACHE: compileCache },
  })
  const calls = new Map<number, { resolve: (result: unknown) => void; reject: (error: Error) => void }>()
  const ready = Promise.withResolvers<{ listen: { host: string; port: number }; certificatePem: string }>()
  child.on('message', (raw) => {
    const message = reply.parse(raw)
    if ('ready' in message) ready.resolve(message.ready)
    else if ('error' in message)
      calls.get(message.callId)?.reject(new Error(`${message.error.code}: ${message.error.message}`))
    else calls.get(message.callId)?.resolve(message.result)
  })
  child.once('exit', (code) => {
    const gone = new Error(`agent ${setUp.name} ended with exit code ${code}`)
    ready.reject(gone)
    for (const call of calls.values()) call.reject(gone)
  })
  let callId = 0
  const call = (kind: AgentCall['kind'], request: AgentCall['request']): Promise<unknown> => {
    callId += 1
    const id = callId
    return new Promise((resolve, reject) => {
      calls.set(id, { resolve, reject })
      child.send({ callId: id, kind, request } satisfies AgentCall)
    })
  }
  const { listen, certificatePem } = await ready.promise
  const acked = async (vm: string): Promise<AckedPoint> => {
    const state = (await call('state', { vmId: vm })) as {
      ackedSeq: number
      ackedCapturedAtMs: number | null
      needsSync: string | null
    } | null
    return state && state.needsSync === null
      ? { seq: state.ackedSeq, capturedAtMs: state.ackedCapturedAtMs }
      : { seq: 0, capturedAtMs: null }
  }
  return {
    pid: child.pid ?? 0,
    serverId: setUp.serverId,
    dir: setUp.dir,
    listen,
    certificatePem,
    command: async (kind, request) => (await call(kind, request)) as CommandResultOf<typeof kind>,
    points: async (vm) => pointReport.array().parse(await call('points', { vmId: vm })),
    ackedSeq: async (vm) => (await acked(vm)).seq,
    acked,
    [Symbol.asyncDispose]: () => stop(child),
  }
}

async function stop(child: ChildProcess): Promise<void> {
  if (child.exitCode !== null) return
  const exited = new Promise<void>((resolve) => child.once('exit', () => resolve()))
  child.disconnect()
  await exited
}
