import type { AgentOptions } from '../agent.ts'
import { type CaptureWorker, startCaptureWorker } from '../capture/client.ts'
import { defaultCaptureLimits } from '../capture/limits.ts'

/** Capture, hash trees and buffer.db, in a worker of their own. */
export function openEngine({ config, identity, log, overrides }: AgentOptions): Promise<CaptureWorker> {
  const { dataDir, bufferMaxBytes, hypervisor } = config
  return startCaptureWorker(
    {
      dataDir,
      hypervisor,
      hypervisorModule: overrides?.hypervisorModule,
      vaultId: identity.vaultId,
      serverId: identity.serverId,
      secretKey: identity.keys.secretKey,
      limits: { ...defaultCaptureLimits, bufferMaxBytes },
    },
    { log },
  )
}
