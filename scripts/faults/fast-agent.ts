/**
 * The recovery agent of the chaos runs: `node fast-agent.ts CONFIG`. The real daemon, on a clock whose intervals pass
 * fifteen times as fast (the wall clock stays true), so that 30-second copies come every two seconds.
 */

import { startAgent } from '#recovery-agent/agent.ts'
import { loadAgentConfig } from '#recovery-agent/config.ts'
import { startWhenRoom } from '#recovery-agent/daemon/start-when-room.ts'
import { channelLimits } from '#shared/channel/limits.ts'
import { type Clock, systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { openLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { loadIdentity } from '#shared/trust/identity-store.ts'

const speed = 15

const fastClock: Clock = {
  now: systemClock.now,
  monotonicMs: () => systemClock.monotonicMs() * speed,
  sleep: (ms, signal) => systemClock.sleep(ms / speed, signal),
}

const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())

const config = loadAgentConfig(process.argv.at(-1) ?? '')
await using log = openLog('agent', config.log)
const start = () =>
  startAgent({
    config,
    identity: loadIdentity(config.dataDir),
    clock: fastClock,
    rng: systemRng,
    log,
    crashPoint: crashPointFromEnv(process.env),
    overrides: {
      channelLimits: {
        handshakeTimeoutMs: channelLimits.handshakeTimeoutMs * speed,
        heartbeatIntervalMs: channelLimits.heartbeatIntervalMs * speed,
      },
    },
  })
await using _agent = await startWhenRoom(start, { clock: fastClock, log, signal: stop.signal })
await new Promise<void>((resolve) => {
  if (stop.signal.aborted) resolve()
  stop.signal.addEventListener('abort', () => resolve(), { once: true })
})
