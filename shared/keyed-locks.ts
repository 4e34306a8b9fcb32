/** Runs at most one task of a key at a time, in the order they were asked for. */
export class KeyedLocks<Key> {
  readonly #tails = new Map<Key, Promise<unknown>>()

  run<T>(key: Key, task: () => Promise<T>): Promise<T> {
    const before = this.#tails.get(key) ?? Promise.resolve()
    const result = before.then(task)
    // The next task runs whatever became of this one; its failure is the caller's.
    const tail = result.then(
      () => {},
      () => {},
    )
    this.#tails.set(key, tail)
    void tail.then(() => {
      if (this.#tails.get(key) === tail) this.#tails.delete(key)
    })
    return result
  }
}
