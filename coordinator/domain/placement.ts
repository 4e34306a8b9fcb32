/** Where a replica goes: the best host of the target cloud, and the reason each other host lost (DESIGN §9). */

export interface PlacementHost {
  readonly name: string
  readonly networks: readonly string[]
  readonly classifications: readonly string[]
  /** null: no recovery agent of this host is registered. */
  readonly agent: { readonly connected: boolean; readonly replicaFreeBytes: number } | null
}

export interface PlacementNeed {
  /** Of all disks of the VM. */
  readonly sizeBytes: number
  /** Target networks its NICs are mapped to. */
  readonly networks: readonly string[]
  readonly classification: string | null
  /** The host the VM runs on: a replica beside its source would share its fate. */
  readonly sourceHost: string | null
}

export interface PlacementVerdict {
  readonly host: string
  /** null: it can take the replica. */
  readonly refusal: string | null
  /** Why another one was preferred, or why this one was. */
  readonly note: string
}

export interface Placement {
  readonly chosen: string | null
  /** Best first. */
  readonly verdicts: readonly PlacementVerdict[]
}

/** What stays free on a replica store after the first copy: room for the layers of the first cycles. */
const headroomFactor = 1.1

export function place(hosts: readonly PlacementHost[], need: PlacementNeed): Placement {
  const judged = hosts.map((host) => ({ host, refusal: refusalOf(host, need) }))
  const able = judged
    .filter(({ refusal }) => refusal === null)
    .map(({ host }) => host)
    .sort((a, b) => rank(b, need) - rank(a, need) || freeOf(b) - freeOf(a) || (a.name < b.name ? -1 : 1))
  const best = able[0]
  const verdicts = [
    ...able.map((host, index) => ({
      host: host.name,
      refusal: null,
      note: index === 0 ? `chosen, ${gib(freeOf(host))} free` : whyLost(host, best, need),
    })),
    ...judged.flatMap(({ host, refusal }) =>
      refusal === null ? [] : [{ host: host.name, refusal, note: refusal }],
    ),
  ]
  return { chosen: best?.name ?? null, verdicts }
}

function refusalOf(host: PlacementHost, need: PlacementNeed): string | null {
  if (host.name === need.sourceHost) return 'the VM itself runs there'
  if (!host.agent) return 'no recovery agent is registered'
  if (!host.agent.connected) return 'its recovery agent is not connected'
  const missing = need.networks.filter((network) => !host.networks.includes(network))
  if (missing.length > 0) return `cannot reach ${missing.join(', ')}`
  const neededBytes = need.sizeBytes * headroomFactor
  if (host.agent.replicaFreeBytes < neededBytes)
    return `${gib(host.agent.replicaFreeBytes)} free, ${gib(neededBytes)} needed`
  return null
}

const freeOf = (host: PlacementHost): number => host.agent?.replicaFreeBytes ?? 0

/** The same classification as at the source is preferred, not required: mappings of classifications come later. */
function rank(host: PlacementHost, need: PlacementNeed): number {
  return need.classification !== null && host.classifications.includes(need.classification) ? 1 : 0
}

function whyLost(host: PlacementHost, best: PlacementHost | undefined, need: PlacementNeed): string {
  if (best && rank(best, need) > rank(host, need))
    return `${best.name} has classification ${need.classification}`
  return `${best?.name} has more room (${gib(best ? freeOf(best) : 0)} against ${gib(freeOf(host))})`
}

const gib = (bytes: number): string => `${(bytes / 2 ** 30).toFixed(1)} GiB`
