import cron from 'node-cron'
import type { Clock } from '#shared/clock.ts'
import type { Logger } from '#shared/log.ts'
import { pruneBackups, takeBackup } from './backup.ts'

export interface BackupConfig {
  readonly enabled: boolean
  /** Five fields of cron(5), in the time zone of this machine. */
  readonly schedule: string
  readonly keep: number
  readonly dir: string
}

/** Backs up on the calendar until disposed. A failure is logged and the next date tries again. */
export function scheduleBackups(options: {
  config: BackupConfig
  dataDir: string
  clock: Clock
  log: Logger
}): AsyncDisposable {
  const { config, dataDir, clock, log } = options
  let running: Promise<void> = Promise.resolve()
  const run = async () => {
    try {
      const folder = await takeBackup({ dataDir, backupDir: config.dir, nowMs: clock.now() })
      pruneBackups(config.dir, config.keep)
      log.info('backup taken', { folder })
    } catch (error) {
      log.error('backup failed', { dir: config.dir, error })
    }
  }
  const task = cron.schedule(config.schedule, () => {
    running = run()
    return running
  })
  return {
    async [Symbol.asyncDispose]() {
      await task.destroy()
      await running
    },
  }
}

export const isSchedule = (text: string): boolean => cron.validate(text)
