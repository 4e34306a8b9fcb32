/** Which points may be used, in words for whoever wanted one that may not. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { Chain, ChainPoint } from './chain.ts'
import type { ReplicaContext } from './context.ts'
import { damagedSeqs, seqsSeeing } from './damage.ts'

/** Block numbers named in a message; the rest is counted. */
const NAMED_BLOCKS = 8

export function damagedPointSeqs({ catalog }: ReplicaContext, vmId: VmId, chain: Chain): ReadonlySet<number> {
  const damages = catalog.damage.list(vmId)
  return damages.length === 0 ? new Set() : damagedSeqs(chain, damages, catalog.layerLeaves)
}

/** Throws `point-damaged`, with what is wrong and which point to take instead. */
export function refuseDamaged(context: ReplicaContext, vmId: VmId, point: ChainPoint): void {
  const chain = context.catalog.chain(vmId)
  const damaged = damagedPointSeqs(context, vmId, chain)
  if (damaged.has(point.seq)) throw pointDamaged(context, { vmId, chain, point, damaged })
}

function pointDamaged(
  { catalog }: ReplicaContext,
  of: { vmId: VmId; chain: Chain; point: ChainPoint; damaged: ReadonlySet<number> },
): HotsiteError {
  const { vmId, chain, point, damaged } = of
  const seen = catalog.damage.list(vmId).flatMap((damage) => {
    const { diskId, seq, what, blockIndexes } = damage
    if (seq > point.seq) return []
    if (damage.groupIndex === null) return [{ diskId, seq, what, blockIndexes }]
    const visible = blockIndexes.filter((blockIndex) =>
      [...seqsSeeing(chain, damage, blockIndex, catalog.layerLeaves)].includes(point.seq),
    )
    return visible.length > 0 ? [{ diskId, seq, what, blockIndexes: visible }] : []
  })
  const sound = chain.findLast(({ state, seq }) => state === 'point' && !damaged.has(seq))
  const newestSound = sound ? { epoch: sound.epoch, seq: sound.seq } : null
  const where = seen.map(({ diskId, seq, what, blockIndexes }) => {
    const named = blockIndexes.slice(0, NAMED_BLOCKS).join(', ')
    const more = blockIndexes.length > NAMED_BLOCKS ? ` and ${blockIndexes.length - NAMED_BLOCKS} more` : ''
    return `disk ${diskId}, layer ${seq}${named ? `, block ${named}${more}` : ''}: ${what}`
  })
  return new HotsiteError(
    'point-damaged',
    `recovery point ${point.epoch}/${point.seq} of ${vmId} is not what was attested (${where.slice(0, NAMED_BLOCKS).join('; ')}); ` +
      (newestSound
        ? `the newest sound point is ${newestSound.epoch}/${newestSound.seq}`
        : 'no point of it is sound'),
    { details: { vmId, point: { epoch: point.epoch, seq: point.seq }, damage: seen, newestSound } },
  )
}
