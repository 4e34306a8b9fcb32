/**
 * Loaded before a daemon, and before each of its workers, with NODE_OPTIONS=--import: the wall clock is off by as many
 * milliseconds as the file named in HOTSITE_CLOCK_SHIFT holds at that moment. Monotonic time stays true, as after a
 * jump of a real clock.
 */
import { readFileSync } from 'node:fs'

const trueNow = Date.now
const path = process.env['HOTSITE_CLOCK_SHIFT']

Date.now = () => {
  if (path === undefined) return trueNow()
  try {
    return trueNow() + Number(readFileSync(path, 'utf8'))
  } catch {
    return trueNow()
  }
}
