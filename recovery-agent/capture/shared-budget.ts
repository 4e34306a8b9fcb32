/** Bytes that many users share; who asked first is served first. Pure: no clock, no I/O. */
export class SharedBudget {
  #freeBytes: number
  readonly #totalBytes: number
  #waiting: { readonly bytes: number; readonly user: BudgetUser; readonly grant: () => void }[] = []

  constructor(totalBytes: number) {
    this.#totalBytes = totalBytes
    this.#freeBytes = totalBytes
  }

  user(): BudgetUser {
    const user: BudgetUser = new BudgetUser(
      (bytes) =>
        new Promise((resolve) => {
          this.#waiting.push({ bytes: Math.min(bytes, this.#totalBytes), user, grant: resolve })
          this.#serve()
        }),
      (bytes) => {
        this.#freeBytes += bytes
        this.#serve()
      },
    )
    return user
  }

  #serve(): void {
    for (;;) {
      // Whoever holds nothing goes first: one that waits for its own link must not keep all others from theirs.
      const next = this.#waiting.find(({ user }) => user.heldBytes === 0) ?? this.#waiting[0]
      if (!next || next.bytes > this.#freeBytes) return
      this.#waiting = this.#waiting.filter((other) => other !== next)
      if (next.user.ended) {
        next.grant()
        continue
      }
      this.#freeBytes -= next.bytes
      next.user.granted(next.bytes)
      next.grant()
    }
  }
}

export class BudgetUser {
  readonly #ask: (bytes: number) => Promise<void>
  readonly #giveBack: (bytes: number) => void
  #heldBytes = 0
  #ended = false

  constructor(ask: (bytes: number) => Promise<void>, giveBack: (bytes: number) => void) {
    this.#ask = ask
    this.#giveBack = giveBack
  }

  get heldBytes(): number {
    return this.#heldBytes
  }

  get ended(): boolean {
    return this.#ended
  }

  /** More than there is counts as all of it. Resolves at once after `end`. */
  async take(bytes: number): Promise<void> {
    if (!this.#ended) await this.#ask(bytes)
  }

  granted(bytes: number): void {
    this.#heldBytes += bytes
  }

  /** Never more than is held: what comes twice, or after the end, changes nothing. */
  release(bytes: number): void {
    const released = Math.min(bytes, this.#heldBytes)
    this.#heldBytes -= released
    this.#giveBack(released)
  }

  /** Everything is back, whatever became of it. */
  end(): void {
    this.#ended = true
    this.release(this.#heldBytes)
  }
}
