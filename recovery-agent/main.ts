import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { openLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { loadIdentity } from '#shared/trust/identity-store.ts'
import { startAgent } from './agent.ts'
import { loadAgentConfig } from './config.ts'
import { startWhenRoom } from './daemon/start-when-room.ts'

/**
 * `hotsite agent --config FILE`: runs until the signal, then stops cleanly. While a disk is full at the start, it waits. Throws `config-invalid`, `not-registered`,
 * `data-dir-in-use`, `data-version-unknown`, `channel-cannot-listen`.
 */
export async function runAgent(configPath: string, signal: AbortSignal): Promise<void> {
  const config = loadAgentConfig(configPath)
  const identity = loadIdentity(config.dataDir)
  await using log = openLog('agent', config.log)
  const start = () =>
    startAgent({
      config,
      identity,
      clock: systemClock,
      rng: systemRng,
      log,
      crashPoint: crashPointFromEnv(process.env),
    })
  await using agent = await startWhenRoom(start, { clock: systemClock, log, signal })
  if (agent === undefined) return
  const stopped = new Promise<undefined>((resolve) => {
    if (signal.aborted) resolve(undefined)
    else signal.addEventListener('abort', () => resolve(undefined), { once: true })
  })
  const broken = await Promise.race([stopped, agent.broken])
  if (broken) throw broken
}
