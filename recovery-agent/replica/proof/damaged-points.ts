/** Which points may be used, in words for whoever wanted one that may not. */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { VmId } from '#shared/ids.ts'
import type { Chain, ChainPoint } from '../catalog/chain.ts'
import { damagedSeqs, visibleDamage } from '../catalog/damage.ts'
import type { ReplicaContext } from '../context.ts'

/** Places, and block numbers of each, that an error names. */
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
    const visible = [...visibleDamage(chain, damage, catalog.layerLeaves)].find(
      (one) => one.seq === point.seq,
    )
    return visible ? [{ diskId, seq, what, blockIndexes: visible.blockIndexes }] : []
  })
  const sound = chain.findLast(({ state, seq }) => state === 'point' && !damaged.has(seq))
  const newestSound = sound ? { epoch: sound.epoch, seq: sound.seq } : null
  const named = seen.slice(0, NAMED_BLOCKS)
  const where = named.map(({ diskId, seq, what, blockIndexes }) => {
    const blocks = blockIndexes.slice(0, NAMED_BLOCKS).join(', ')
    const more = blockIndexes.length > NAMED_BLOCKS ? ` and ${blockIndexes.length - NAMED_BLOCKS} more` : ''
    return `disk ${diskId}, layer ${seq}${blocks ? `, block ${blocks}${more}` : ''}: ${what}`
  })
  const damage = named.map((one) => ({ ...one, blockIndexes: one.blockIndexes.slice(0, NAMED_BLOCKS) }))
  return new HotsiteError(
    'point-damaged',
    `recovery point ${point.epoch}/${point.seq} of ${vmId} is not what was attested (${where.join('; ')}); ` +
      (newestSound
        ? `the newest sound point is ${newestSound.epoch}/${newestSound.seq}`
        : 'no point of it is sound'),
    { details: { vmId, point: { epoch: point.epoch, seq: point.seq }, damage, newestSound } },
  )
}
