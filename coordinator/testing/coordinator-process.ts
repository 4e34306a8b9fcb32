/** A coordinator as a process of its own, for tests that kill it: `node coordinator-process.ts <data dir> <channel port>`. */
import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { silentLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { startCoordinator } from '../coordinator.ts'
import { quickLimits } from './quick-limits.ts'

const [, , dataDir = '', port = '0'] = process.argv
await startCoordinator({
  config: {
    dataDir,
    listen: { host: '127.0.0.1', port: Number(port) },
    registration: { host: '127.0.0.1', port: 0 },
  },
  clock: systemClock,
  rng: systemRng,
  log: silentLog,
  crashPoint: crashPointFromEnv(process.env),
  limits: quickLimits,
})
