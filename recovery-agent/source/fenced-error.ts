import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { SourceRecord } from '../state/agent-state.ts'

export function fencedError({ vmId, epoch }: SourceRecord): HotsiteError {
  return new HotsiteError('epoch-stale', `VM ${vmId} runs elsewhere at a later epoch than ${epoch}`)
}
