import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { systemClock } from '#shared/clock.ts'
import { openStore } from '../store/open.ts'
import { pairedSites, TestCoordinator } from '../testing/test-coordinator.ts'

const script = fileURLToPath(new URL('../testing/coordinator-process.ts', import.meta.url))

/** Every instant at which a coordinator may die while a job runs, and how often it is passed before it does. */
const crashes = [
  'command-stored:1',
  'command-before-send:1',
  'result-before-store:1',
  'result-stored:1',
  'step-begun:1',
  'step-observed:1',
  'step-stored:1',
  'report-before-ack:2',
]

function launch(dataDir: string, port: number, crashAt: string | undefined): ChildProcess {
  return spawn(process.execPath, [script, dataDir, String(port)], {
    stdio: ['ignore', 'ignore', 'inherit'],
    env: { ...process.env, ...(crashAt ? { HOTSITE_CRASH_AT: crashAt } : {}) },
  })
}

describe('a coordinator killed at every named instant', () => {
  it('ends a planned failover with one VM running, every command carried out once', async () => {
    await using test = await TestCoordinator.start()
    const { a, b } = await pairedSites(test)
    await test.job((await test.service.protect('shop', {})).jobId)
    const { dialled, dataDir } = test
    for (const server of test.servers) await server.disconnect()
    const { jobId } = await test.service.plannedFailover('shop')
    await test.stop()

    const keeping = test.servers.map((server) => server.keepConnected(() => dialled))
    const died: string[] = []
    for (const crashAt of crashes) {
      if (await lifeEnds(launch(dataDir, dialled.port, crashAt), dataDir, jobId)) died.push(crashAt)
      else break
    }
    expect(await lifeEnds(launch(dataDir, dialled.port, undefined), dataDir, jobId)).toBe(false)
    for (const server of test.servers) await server.disconnect()
    await Promise.all(keeping)

    await test.start()
    expect(died.length).toBeGreaterThan(5)
    expect(await test.service.showJob(jobId)).toMatchObject({ state: 'succeeded', error: null })
    expect(await test.service.showVm('shop')).toMatchObject({ state: 'failedOver', epoch: 2 })
    expect([a.provider.running(), b.provider.running().length]).toEqual([[], 1])
    for (const { carriedOut } of test.servers) {
      const ids = carriedOut.map(({ commandId }) => commandId)
      expect(new Set(ids).size).toBe(ids.length)
    }
  })
})

/** True: it died. False: the job ended, and the process was killed then. */
async function lifeEnds(child: ChildProcess, dataDir: string, jobId: string): Promise<boolean> {
  const over = new AbortController()
  const exit = once(child, 'exit').then(() => over.abort())
  await jobEnds(dataDir, jobId, over.signal)
  const died = over.signal.aborted
  child.kill('SIGKILL')
  await exit
  return died
}

/** Looks into the database beside the process; ends with the job or with the signal. */
async function jobEnds(dataDir: string, jobId: string, signal: AbortSignal): Promise<void> {
  await using store = openStore(dataDir)
  const query = store.db.selectFrom('jobs').select('ended_at_ms').where('job_id', '=', jobId)
  while (!signal.aborted && (await query.executeTakeFirst())?.ended_at_ms == null)
    await systemClock.sleep(30, signal).catch(() => {})
}
