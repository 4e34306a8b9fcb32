/** A TCP relay before a target's port that can be cut, stalled and made to flip a bit. */
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'

export interface FaultyLink extends AsyncDisposable {
  readonly port: number
  readonly bytesToTarget: number
  /** Every connection ends at once. */
  cut(): void
  /** While true nothing passes, and new connections hang: a pulled cable. */
  setStalled(stalled: boolean): void
  /** One bit of the next bytes is flipped. */
  flipNextBit(): void
  /** From the next bytes on, towards the target. */
  setBytesPerSecond(rate: number): void
}

export async function openFaultyLink(
  targetPort: number,
  /** Towards the target; left out: as fast as it goes. */
  { bytesPerSecond = Number.POSITIVE_INFINITY }: { readonly bytesPerSecond?: number } = {},
): Promise<FaultyLink> {
  const sockets = new Set<Socket>()
  let stalled = false
  let flip = false
  let bytesToTarget = 0
  let rateToTarget = bytesPerSecond

  const asFastAsItGoes = () => Number.POSITIVE_INFINITY
  const relay = (
    from: Socket,
    to: Socket,
    rate = asFastAsItGoes,
    count: (bytes: number) => void = () => {},
  ): void => {
    sockets.add(from)
    let dueMs = 0
    from.on('data', (data) => {
      if (flip) {
        flip = false
        const index = data.length >> 1
        data[index] = (data[index] ?? 0) ^ 1
      }
      count(data.length)
      dueMs = Math.max(dueMs, performance.now()) + (data.length * 1000) / rate()
      if (dueMs > performance.now() + 1) {
        from.pause()
        setTimeout(() => {
          if (!stalled) from.resume()
        }, dueMs - performance.now())
        to.write(data)
      } else if (!to.write(data)) {
        from.pause()
        to.once('drain', () => {
          if (!stalled) from.resume()
        })
      }
    })
    from.on('error', () => {})
    from.on('close', () => {
      sockets.delete(from)
      to.destroy()
    })
    if (stalled) from.pause()
  }
  const server = createServer((near) => {
    const far = connect(targetPort, '127.0.0.1')
    const toTarget = (bytes: number) => {
      bytesToTarget += bytes
    }
    relay(near, far, () => rateToTarget, toTarget)
    relay(far, near)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const cut = () => {
    for (const socket of sockets) socket.destroy()
  }
  return {
    port: (server.address() as AddressInfo).port,
    get bytesToTarget() {
      return bytesToTarget
    },
    cut,
    setStalled(now) {
      stalled = now
      for (const socket of sockets)
        if (now) socket.pause()
        else socket.resume()
    },
    flipNextBit() {
      flip = true
    },
    setBytesPerSecond(rate) {
      rateToTarget = rate
    },
    async [Symbol.asyncDispose]() {
      cut()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
