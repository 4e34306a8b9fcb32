import type { VmId } from '#shared/ids.ts'
import { type Contender, nextTurn } from './turn-order.ts'

interface Waiting {
  readonly contender: Contender
  readonly grant: () => void
}

/** Lets one VM after another put a batch on a shared link, in the order of turn-order.ts. */
export class Turns {
  readonly #waiting = new Set<Waiting>()
  readonly #lastTurn = new Map<VmId, number>()
  readonly #now: () => number
  #turn = 0
  #busy = false

  /** `now`: the clock that deadlines are read on. */
  constructor(now: () => number) {
    this.#now = now
  }

  /** Runs `send` when it is this VM's turn. Turns do not overlap. */
  async take<T>(
    vm: { readonly vmId: VmId; readonly deadlineMs: number | null },
    signal: AbortSignal,
    send: () => Promise<T>,
  ): Promise<T> {
    await this.#granted(vm, signal)
    try {
      return await send()
    } finally {
      this.#busy = false
      this.#grantNext()
    }
  }

  forget(vmId: VmId): void {
    this.#lastTurn.delete(vmId)
  }

  #granted(vm: { vmId: VmId; deadlineMs: number | null }, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      if (signal.aborted) return reject(signal.reason)
      const contender = { ...vm, lastTurn: this.#lastTurn.get(vm.vmId) ?? 0 }
      const onAbort = () => {
        this.#waiting.delete(waiting)
        reject(signal.reason)
      }
      const waiting: Waiting = {
        contender,
        grant: () => {
          signal.removeEventListener('abort', onAbort)
          resolve()
        },
      }
      signal.addEventListener('abort', onAbort, { once: true })
      this.#waiting.add(waiting)
      this.#grantNext()
    })
  }

  #grantNext(): void {
    if (this.#busy || this.#waiting.size === 0) return
    this.#turn += 1
    const chosen = nextTurn(
      [...this.#waiting].map(({ contender }) => contender),
      this.#turn,
      this.#now(),
    )
    const waiting = [...this.#waiting].find(({ contender }) => contender === chosen)
    if (!waiting) return
    this.#waiting.delete(waiting)
    this.#busy = true
    this.#lastTurn.set(waiting.contender.vmId, this.#turn)
    waiting.grant()
  }
}
