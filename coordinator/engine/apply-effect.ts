import { assert, defined } from '#shared/assert.ts'
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import type { JobId, VaultId, VmId } from '#shared/ids.ts'
import { type ProtectionEvent, transition } from '../domain/protection.ts'
import { type TestFailoverEvent, transitionTest } from '../domain/test-failover.ts'
import type { ProtectedVm } from '../store/documents.ts'
import { type Picture, putPicture } from '../store/pictures.ts'
import {
  deleteProtectedVm,
  findProtectedVm,
  insertProtectedVm,
  updateProtectedVm,
} from '../store/protected-vms.ts'
import { deleteVmReports } from '../store/reports.ts'
import type { Db } from '../store/schema.ts'
import { deleteSealedKey } from '../store/seed-keys.ts'
import { emit, type Notice } from './emit.ts'
import type { Engine } from './engine.ts'

/** What a step, a report or a keeper changes of a protected VM: data, applied in the transaction that records why. */
export interface Effect {
  readonly insert?: ProtectedVm
  readonly event?: ProtectionEvent
  readonly test?: readonly TestFailoverEvent[]
  /** Everything but the two states, which only their events change. */
  readonly patch?: Partial<Omit<ProtectedVm, 'protection' | 'test' | 'vaultId' | 'vmId'>>
  readonly forget?: true
  /** The first point stands: the seed is of no more use, nor is its key (I15). */
  readonly forgetSeedKey?: true
  /** Of a console, as evidence of the job. */
  readonly picture?: Picture
  readonly notices?: readonly Notice[]
}

export interface EffectTarget {
  readonly vaultId: VaultId
  readonly vmId: VmId
  readonly jobId: JobId | null
}

/** Inside a transaction. Throws `state-changed` when the VM is not in a state the event applies to. */
export async function applyEffect(
  engine: Engine,
  db: Db,
  target: EffectTarget,
  effect: Effect,
): Promise<void> {
  const { vaultId, vmId, jobId } = target
  const change = { event: nameOf(effect), jobId, nowMs: engine.clock.now() }
  if (effect.insert) await insertProtectedVm(db, effect.insert, change)
  if (effect.event || effect.test || effect.patch || effect.forget) {
    const stored = defined(await findProtectedVm(db, vaultId, vmId), `protected VM ${vmId}`)
    const next = changedVm(stored.vm, effect)
    if (effect.forget) {
      await deleteProtectedVm(db, next, change)
      await deleteVmReports(db, vaultId, vmId)
      await deleteSealedKey(db, { vaultId, vmId })
    } else {
      await updateProtectedVm(db, next, { ...change, expectedVersion: stored.version })
    }
    if (effect.event || effect.test)
      engine.log.info('vm state', {
        vmId,
        jobId,
        transition: `${stored.vm.protection.kind}=>${effect.forget ? 'forgotten' : next.protection.kind}`,
        test: next.test.kind,
        epoch: next.epoch,
      })
  }
  if (effect.forgetSeedKey) await deleteSealedKey(db, { vaultId, vmId })
  if (effect.picture && jobId) await putPicture(db, { vaultId, jobId, vmId }, effect.picture)
  for (const notice of effect.notices ?? []) await emit(engine, db, vaultId, { vmId, ...notice })
}

function changedVm(vm: ProtectedVm, { event, test = [], patch = {} }: Effect): ProtectedVm {
  assert((patch.epoch ?? vm.epoch) >= vm.epoch, `the epoch of ${vm.vmId} never goes back`)
  let { protection, test: testState } = vm
  if (event) {
    const moved = transition(protection, event)
    if (moved.kind === 'refused') throw refused(vm, moved.reason)
    protection = moved.state
  }
  for (const each of test) {
    const moved = transitionTest(testState, each)
    if (moved.kind === 'refused') throw refused(vm, moved.reason)
    testState = moved.state
  }
  return { ...vm, ...patch, protection, test: testState }
}

const refused = (vm: ProtectedVm, reason: string) =>
  new HotsiteError('state-changed', `VM ${vm.name} is no longer in the state this needs: ${reason}`)

function nameOf({ insert, event, test, patch, forget }: Effect): string {
  const names = [
    ...(insert ? ['protectBegan'] : []),
    ...(event ? [event.kind] : []),
    ...(test ?? []).map(({ kind }) => kind),
    ...(forget ? ['forgotten'] : []),
  ]
  return names.join('+') || (patch ? `changed ${Object.keys(patch).join(', ')}` : 'noticed')
}
