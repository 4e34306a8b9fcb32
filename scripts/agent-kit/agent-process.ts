/** A recovery agent in a process of its own, without a coordinator: commands come over Node's IPC and go to the real handlers. */

import { startAgent } from '#recovery-agent/agent.ts'
import { resolveAgentConfig } from '#recovery-agent/config.ts'
import { systemClock } from '#shared/clock.ts'
import { noCrash } from '#shared/crash-point.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import { serverId, vaultId, vmId } from '#shared/ids.ts'
import { openLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { keysFromSecret } from '#shared/trust/keys.ts'
import { makeTlsIdentity } from '#shared/trust/tls-identity.ts'
import type { AgentCall, AgentSetUp } from './agent-pair.ts'

const setUp = JSON.parse(process.argv[2] ?? '{}') as AgentSetUp
const base64 = (text: string) => Buffer.from(text, 'base64')

await using log = openLog(setUp.name, { level: 'warn', dir: setUp.dir })
await using agent = await startAgent({
  config: resolveAgentConfig(
    {
      name: setUp.name,
      dataDir: setUp.dir,
      hypervisor: { driver: 'folder', root: setUp.fabricRoot, host: setUp.name },
      listen: { host: '127.0.0.1', port: 0 },
    },
    `${setUp.dir}/config.yaml`,
  ),
  identity: {
    vaultId: vaultId.parse(setUp.vaultId),
    vaultName: 'bench',
    serverId: serverId.parse(setUp.serverId),
    kind: 'agent',
    name: setUp.name,
    keys: keysFromSecret(base64(setUp.secretKey)),
    membership: base64(setUp.membership),
    vaultPublicKey: base64(setUp.vaultPublicKey),
    generation: 1,
    // Nobody listens there: replication does not need a coordinator (I12).
    coordinatorCertificatePem: (await makeTlsIdentity('nobody')).certificatePem,
    channelAddresses: [{ host: '127.0.0.1', port: 9 }],
    registeredAtMs: systemClock.now(),
  },
  clock: systemClock,
  rng: systemRng,
  log,
  crashPoint: noCrash,
  overrides: { hypervisorModule: new URL('./tracking-hypervisor.ts', import.meta.url).href },
})

async function answer({ kind, request }: AgentCall): Promise<unknown> {
  if (kind === 'state') return (await agent.engine.state(vmId.parse(request['vmId']))) ?? null
  if (kind === 'points') return agent.store.points(vmId.parse(request['vmId']))
  // The handlers take what the schemas of shared/messages describe; the caller is typed by them.
  const handler = agent.handlers[kind] as (request: unknown, signal: AbortSignal) => Promise<unknown>
  return handler(request, new AbortController().signal)
}

// The parent may have gone while a command ran.
const tell = (message: object) => {
  if (process.connected) process.send?.(message)
}
process.on('message', (call: AgentCall) => {
  answer(call).then(
    (result) => tell({ callId: call.callId, result }),
    (error) => tell({ callId: call.callId, error: errorDocument(error) }),
  )
})
process.send?.({ ready: { listen: agent.listen, certificatePem: agent.certificatePem } })
// A listener for `disconnect` alone does not keep a process alive; the IPC channel itself does until then.
process.channel?.ref()
await new Promise<void>((resolve) => process.once('disconnect', () => resolve()))
