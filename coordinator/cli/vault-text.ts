import type { VaultView } from '#coordinator/admin/views.ts'
import type { Paint } from './text/style.ts'
import { factLines } from './text/table.ts'
import { durationText, timeText } from './text/units.ts'

export function vaultFacts(vault: VaultView, nowMs: number, paint: Paint): string[] {
  const facts: (readonly [string, string])[] = [
    ['name', vault.name],
    ['id', vault.vaultId],
    ['region', vault.region],
    ['subscription', vault.subscription],
    ['created', timeText(vault.createdAtMs)],
    ['key', `generation ${vault.keyGeneration}, ${vault.publicKeyBase64}`],
  ]
  const { certificate } = vault
  if (certificate) {
    facts.push(['certificate', certificate.subject])
    facts.push(['thumbprint', `SHA-256 ${certificate.thumbprintSha256}`])
    facts.push(['valid', validityText(certificate.notAfterMs, nowMs)])
  } else facts.push(['certificate', 'none: servers cannot register yet'])
  return factLines(facts, paint)
}

function validityText(notAfterMs: number, nowMs: number): string {
  const left = notAfterMs - nowMs
  return `until ${timeText(notAfterMs)} (${left > 0 ? `${durationText(left)} left` : 'expired'})`
}
