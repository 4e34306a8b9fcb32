/** Verified pages, the least recently used one goes first. */
export class PageCache {
  readonly #limit: number
  readonly #pages = new Map<string, Buffer>()

  constructor(limit: number) {
    this.#limit = limit
  }

  get(key: string): Buffer | undefined {
    const page = this.#pages.get(key)
    if (!page) return undefined
    this.#pages.delete(key)
    this.#pages.set(key, page)
    return page
  }

  set(key: string, page: Buffer): void {
    this.#pages.delete(key)
    this.#pages.set(key, page)
    if (this.#pages.size <= this.#limit) return
    const [oldest] = this.#pages.keys()
    if (oldest !== undefined) this.#pages.delete(oldest)
  }

  delete(key: string): void {
    this.#pages.delete(key)
  }

  deleteAll(prefix: string): void {
    for (const key of [...this.#pages.keys()]) if (key.startsWith(prefix)) this.#pages.delete(key)
  }
}
