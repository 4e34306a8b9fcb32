import { describeMs } from './quantities.ts'
import type { Attention } from './status.ts'

export interface Sighting {
  readonly server: string
  readonly atMs: number
}

/** Replication survives two machines with one identity, but one of them must go: each takes the other's connection. */
export function ofTwins(sightings: readonly Sighting[], nowMs: number): readonly Attention[] {
  const newest = new Map<string, number>()
  for (const { server, atMs } of sightings) newest.set(server, Math.max(atMs, newest.get(server) ?? 0))
  return [...newest].map(([server, atMs]) => ({
    severity: 'critical' as const,
    text: `two machines run as ${server}, seen ${describeMs(nowMs - atMs)} ago: stop one, delete its data folder, register it anew`,
    command: `hotsite server show ${server}`,
  }))
}
