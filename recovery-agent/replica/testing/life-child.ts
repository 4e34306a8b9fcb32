/**
 * Lives a replica's life in a process of its own: `life-child.ts <dir> <seed>`. Goes on at the step that was not
 * finished; HOTSITE_CRASH_AT kills it on the way.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { systemClock } from '#shared/clock.ts'
import { crashPointFromEnv } from '#shared/crash-point.ts'
import { silentLog } from '#shared/log.ts'
import { openReplicaStore } from '../store.ts'
import { lifeOf } from './life.ts'

const [dir = '', seed = '1'] = process.argv.slice(2)
const progress = join(dir, 'progress')
const done = existsSync(progress) ? Number(readFileSync(progress, 'utf8')) : 0
using store = openReplicaStore({
  dir,
  clock: systemClock,
  log: silentLog,
  crashPoint: crashPointFromEnv(process.env),
})
store.recover()
lifeOf(Number(seed)).steps.forEach((step, i) => {
  if (i < done) return
  step(store)
  writeFileSync(progress, String(i + 1))
})
