import type { Clock } from '#shared/clock.ts'
import { errorDocument } from '#shared/errors/hotsite-error.ts'
import type { Logger } from '#shared/log.ts'
import { limits } from '../limits.ts'

/**
 * `start`, and again while a disk it needs is full: a daemon that ended would only be started once more, and nobody's
 * room returns sooner for it. undefined: the signal came first.
 */
export async function startWhenRoom<T>(
  start: () => Promise<T>,
  { clock, log, signal }: { readonly clock: Clock; readonly log: Logger; readonly signal: AbortSignal },
): Promise<T | undefined> {
  while (!signal.aborted) {
    try {
      return await start()
    } catch (error) {
      const { code, message, recommendedAction } = errorDocument(error)
      if (code !== 'disk-full') throw error
      log.error('the start waits for room', { code, message, recommendedAction, error })
      await clock.sleep(limits.retryLastMs, signal).catch(() => {})
    }
  }
  return undefined
}
