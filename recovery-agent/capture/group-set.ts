/** Groups of one disk: a byte for each 16 MiB of it, where a Set takes some forty. */
export class GroupSet {
  readonly #has: Uint8Array
  #size = 0

  constructor(groupCount: number) {
    this.#has = new Uint8Array(groupCount)
  }

  get size(): number {
    return this.#size
  }

  /** `group` must be below the count given; one that is there already changes nothing. */
  add(group: number): void {
    if (this.#has[group] !== 0) return
    this.#has[group] = 1
    this.#size += 1
  }

  has(group: number): boolean {
    return this.#has[group] === 1
  }
}
