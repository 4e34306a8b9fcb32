/** Two sites with one VM, small enough to read: what they are called, and the policy between them. */
import { replicationPolicy } from '#shared/messages/policy.ts'

export interface SiteNames {
  readonly vmmServer: string
  readonly cloud: string
  readonly host: string
  readonly network: string
}

export const siteA: SiteNames = { vmmServer: 'vmm-a', cloud: 'gold', host: 'host-a', network: 'blue' }
export const siteB: SiteNames = { vmmServer: 'vmm-b', cloud: 'silver', host: 'host-b', network: 'green' }

export const testPolicy = replicationPolicy.parse({ copyFrequencySeconds: 30 })
