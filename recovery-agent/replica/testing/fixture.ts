import { systemClock } from '#shared/clock.ts'
import { type CrashPoint, noCrash } from '#shared/crash-point.ts'
import { silentLog } from '#shared/log.ts'
import type { ReplicaFiles } from '../files.ts'
import type { ReplicaStore } from '../port.ts'
import { openReplicaStore } from '../store.ts'
import { type ModelDelta, replicate } from './model-vm.ts'
import { testFolder } from './test-folder.ts'
import { verifyPoints } from './truth.ts'

/** A store in a folder of its own, with everything that was sent to it. */
export class StoreFixture implements Disposable {
  readonly #folder = testFolder('replica')
  readonly #scratch = testFolder('truth')
  readonly #files: ReplicaFiles | undefined
  readonly history = new Map<number, ModelDelta>()
  store: ReplicaStore & Disposable

  constructor(files?: ReplicaFiles) {
    this.#files = files
    this.store = this.#open(noCrash)
    this.store.recover()
  }

  get dir(): string {
    return this.#folder.path
  }

  get scratch(): string {
    return this.#scratch.path
  }

  #open(crashPoint: CrashPoint) {
    return openReplicaStore({
      dir: this.dir,
      clock: systemClock,
      log: silentLog,
      crashPoint,
      ...(this.#files ? { files: this.#files } : {}),
    })
  }

  reopen(crashPoint: CrashPoint = noCrash): void {
    this.store[Symbol.dispose]()
    this.store = this.#open(crashPoint)
    this.store.recover()
  }

  /** After the store was closed, so that its files could be changed. */
  reopenClosed(): void {
    this.store = this.#open(noCrash)
    this.store.recover()
  }

  deliver(delta: ModelDelta): void {
    this.history.set(delta.header.seq, delta)
    const outcome = replicate(this.store, delta)
    if (outcome.kind !== 'sealed') throw new Error(`diverged: ${outcome.diskIds.join()}`)
  }

  /** Seqs of the points listed, each of which qemu-img found to be the truth. */
  verified(): number[] {
    return verifyPoints(this.store, this.history, this.scratch)
  }

  [Symbol.dispose](): void {
    this.store[Symbol.dispose]()
    this.#folder[Symbol.dispose]()
    this.#scratch[Symbol.dispose]()
  }
}
