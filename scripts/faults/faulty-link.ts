/**
 * A TCP relay that misbehaves on command: what a bad line does to bytes. It stands where the target agent's port is
 * advertised, so the daemons know nothing of it.
 */
import { connect, createServer, type Socket } from 'node:net'

export const linkFaults = ['drop', 'stall', 'repeat', 'flip', 'truncate'] as const
export type LinkFault = (typeof linkFaults)[number]

export interface FaultyLink extends AsyncDisposable {
  readonly port: number
  /** drop: every connection is cut. stall: bytes stop for `stallMs`, connections stay. The others spoil the next chunk. */
  inject(fault: LinkFault, stallMs: number): void
  readonly injected: Readonly<Record<LinkFault, number>>
  /** Bytes relayed both ways. */
  readonly relayedBytes: number
}

export async function openFaultyLink(options: {
  listenPort: number
  targetPort: number
}): Promise<FaultyLink> {
  const injected: Record<LinkFault, number> = { drop: 0, stall: 0, repeat: 0, flip: 0, truncate: 0 }
  const pairs = new Set<readonly [Socket, Socket]>()
  let spoil: Exclude<LinkFault, 'drop' | 'stall'> | undefined
  let stalledUntil = 0
  let relayedBytes = 0

  const forward = (chunk: Buffer, to: Socket): void => {
    relayedBytes += chunk.length
    const fault = spoil
    spoil = undefined
    if (fault === 'flip') chunk.writeUInt8(chunk.readUInt8(chunk.length >> 1) ^ 1, chunk.length >> 1)
    if (fault === 'truncate') return void to.destroy()
    to.write(chunk)
    if (fault === 'repeat') to.write(chunk)
  }
  const relay = (from: Socket, to: Socket): void => {
    from.on('data', (chunk: Buffer) => {
      const waitMs = stalledUntil - performance.now()
      if (waitMs <= 0) {
        forward(chunk, to)
      } else {
        from.pause()
        setTimeout(() => {
          forward(chunk, to)
          from.resume()
        }, waitMs)
      }
      if (to.writableNeedDrain) {
        from.pause()
        to.once('drain', () => from.resume())
      }
    })
    from.on('error', () => to.destroy())
    from.on('close', () => to.destroy())
  }

  const server = createServer((near) => {
    const far = connect(options.targetPort, '127.0.0.1')
    const pair = [near, far] as const
    pairs.add(pair)
    near.on('close', () => pairs.delete(pair))
    relay(near, far)
    relay(far, near)
  })
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(options.listenPort, '127.0.0.1', resolve)
  })
  const cutAll = () => {
    for (const [near, far] of pairs) {
      near.destroy()
      far.destroy()
    }
  }
  return {
    port: options.listenPort,
    injected,
    get relayedBytes() {
      return relayedBytes
    },
    inject(fault, stallMs) {
      injected[fault] += 1
      if (fault === 'drop') cutAll()
      else if (fault === 'stall') stalledUntil = performance.now() + stallMs
      else spoil = fault
    },
    async [Symbol.asyncDispose]() {
      cutAll()
      await new Promise<void>((resolve) => server.close(() => resolve()))
    },
  }
}
