import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { openLog } from '#shared/log.ts'
import { systemRng } from '#shared/rng.ts'
import { programVersion } from '#shared/version.ts'
import { startAdminSocket } from './admin/socket.ts'
import { scheduleBackups } from './backup/schedule.ts'
import { loadCoordinatorConfig } from './config.ts'
import { startCoordinator } from './coordinator.ts'

/**
 * The coordinator daemon, until the signal. Throws `config-invalid`, `data-dir-in-use`, `data-version-unknown`,
 * `admin-socket-in-use` and the errors of its two ports before it does anything.
 */
export async function runCoordinator(configPath: string, signal: AbortSignal): Promise<void> {
  const config = loadCoordinatorConfig(configPath)
  await using log = openLog('coordinator', config.log)
  await using coordinator = await startCoordinator({
    config,
    clock: systemClock,
    rng: systemRng,
    log,
    crashPoint: crashPointFromEnv(process.env),
  })
  const { service, channelPort, registrationPort } = coordinator
  const { socket: socketPath } = config.admin
  await using _admin = await startAdminSocket({ service, socketPath, log, version: programVersion })
  await using _backups = config.backup?.enabled
    ? scheduleBackups({ config: config.backup, dataDir: config.dataDir, clock: systemClock, log })
    : undefined
  log.info('coordinator started', {
    version: programVersion,
    channelPort,
    registrationPort,
    socketPath,
    pid: process.pid,
  })
  await aborted(signal)
  log.info('coordinator stops')
}

function aborted(signal: AbortSignal): Promise<void> {
  if (signal.aborted) return Promise.resolve()
  return new Promise((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
}
