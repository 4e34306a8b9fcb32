/**
 * The items of `source`, up to `depth` of them made before they are asked for. Errors come in their place. Leaving
 * early waits until the source has stopped.
 */
export async function* readAhead<T>(source: AsyncGenerator<T>, depth: number): AsyncGenerator<T> {
  // An async generator queues calls of next() and answers them one after the other.
  const ahead: Promise<IteratorResult<T>>[] = []
  const ask = () => {
    const next = source.next()
    next.catch(() => {})
    ahead.push(next)
  }
  try {
    for (let i = 0; i < depth; i++) ask()
    for (let next = ahead.shift(); next; next = ahead.shift()) {
      const { done, value } = await next
      if (done) return
      ask()
      yield value
    }
  } finally {
    await source.return(undefined).catch(() => {})
  }
}
