/** What is said of the points of a replica beside their own rows. */
import type { VmId } from '#shared/ids.ts'
import type { ReplicaContext } from '../context.ts'
import { damagedPointSeqs } from '../proof/damaged-points.ts'
import type { OverlayRow } from './catalog.ts'
import type { Chain } from './chain.ts'

export interface PointMarks {
  readonly overlays: readonly OverlayRow[]
  /** Why, by seq. */
  readonly suspicions: ReadonlyMap<number, string>
  readonly damaged: ReadonlySet<number>
}

export function pointMarks(context: ReplicaContext, vmId: VmId, chain: Chain): PointMarks {
  const { catalog } = context
  return {
    overlays: catalog.overlays(vmId),
    suspicions: catalog.suspicions.of(vmId),
    damaged: damagedPointSeqs(context, vmId, chain),
  }
}
