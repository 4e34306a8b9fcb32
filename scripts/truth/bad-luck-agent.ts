/**
 * A recovery agent whose wall clock can be set while it runs: `node bad-luck-agent.ts CONFIG`. The file `clock-shift`
 * beside the configuration holds by how many milliseconds it is off. Intervals pass fifteen times as fast, as in the
 * chaos runs.
 */
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { startAgent } from '#recovery-agent/agent.ts'
import { loadAgentConfig } from '#recovery-agent/config.ts'
import { channelLimits } from '#shared/channel/limits.ts'
import { type Clock, systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { openLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { loadIdentity } from '#shared/trust/identity-store.ts'

const speed = 15
const configFile = process.argv.at(-1) ?? ''

function shiftMs(): number {
  try {
    return Number(readFileSync(join(dirname(configFile), 'clock-shift'), 'utf8'))
  } catch {
    return 0
  }
}

const clock: Clock = {
  now: () => systemClock.now() + shiftMs(),
  monotonicMs: () => systemClock.monotonicMs() * speed,
  sleep: (ms, signal) => systemClock.sleep(ms / speed, signal),
}

const stop = new AbortController()
process.once('SIGTERM', () => stop.abort())

const config = loadAgentConfig(configFile)
await using log = openLog('agent', config.log)
await using _agent = await startAgent({
  config,
  identity: loadIdentity(config.dataDir),
  clock,
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
await new Promise<void>((resolve) => {
  if (stop.signal.aborted) resolve()
  stop.signal.addEventListener('abort', () => resolve(), { once: true })
})
