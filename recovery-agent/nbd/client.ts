/**
 * Reads one export of an NBD server, synchronously, with several requests on their way. Replies may come in any order and
 * in pieces; each byte of a read has to come exactly once, and nothing is believed about lengths and offsets.
 */
import { HotsiteError } from '#shared/errors/hotsite-error.ts'
import { type ExportRequest, type NegotiatedExport, negotiate } from './negotiate.ts'
import {
  CHUNK_DONE,
  chunk,
  command,
  encodeRequest,
  isErrorChunk,
  MAX_ERROR_BYTES,
  MAX_STATUS_BYTES,
  malformed,
  REQUEST_BYTES,
  SIMPLE_REPLY_MAGIC,
  STRUCTURED_REPLY_MAGIC,
  serverError,
} from './protocol.ts'
import { type ByteStream, type ConnectOptions, connectUnixStream } from './unix-stream.ts'

/** Larger pieces were slower to read from qemu-nbd, and so were fewer on their way. */
const READ_BYTES = 256 << 10
const MAX_IN_FLIGHT = 16
/** The length of a request is 32 bits, and a multiple of any block size. */
const STATUS_BYTES = 2 ** 32 - 65_536

export interface StatusExtent {
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly flags: number
}

interface PendingRead {
  readonly offsetBytes: number
  readonly target: Buffer
  /** Pieces that came, ascending and joined. */
  readonly came: { start: number; end: number }[]
  error: HotsiteError | undefined
}

interface PendingStatus {
  readonly offsetBytes: number
  readonly lengthBytes: number
  readonly extents: Map<number, StatusExtent[]>
  error: HotsiteError | undefined
}

export class NbdClient implements Disposable {
  readonly #stream: ByteStream
  readonly #export: NegotiatedExport
  readonly #reads = new Map<bigint, PendingRead>()
  readonly #statuses = new Map<bigint, PendingStatus>()
  readonly #head = Buffer.alloc(16)
  #lastHandle = 0n

  /** Throws `nbd-failed` or `nbd-malformed`, like everything here. After one the connection is of no use any more. */
  static connect(options: ConnectOptions & ExportRequest): NbdClient {
    const stream = connectUnixStream(options)
    try {
      return NbdClient.over(stream, options)
    } catch (error) {
      stream[Symbol.dispose]()
      throw error
    }
  }

  static over(stream: ByteStream, request: ExportRequest): NbdClient {
    return new NbdClient(stream, negotiate(stream, request))
  }

  private constructor(stream: ByteStream, negotiated: NegotiatedExport) {
    this.#stream = stream
    this.#export = negotiated
  }

  get sizeBytes(): number {
    return this.#export.sizeBytes
  }

  has(context: string): boolean {
    return this.#export.contextIds.has(context)
  }

  /** Fills `target` from `offsetBytes`; past the end of the export with zeros. */
  read(target: Buffer, offsetBytes: number): void {
    const lengthBytes = Math.max(0, Math.min(target.length, this.sizeBytes - offsetBytes))
    target.fill(0, lengthBytes)
    const { minBlockBytes } = this.#export
    const start = Math.floor(offsetBytes / minBlockBytes) * minBlockBytes
    const end = Math.min(
      Math.ceil((offsetBytes + lengthBytes) / minBlockBytes) * minBlockBytes,
      this.sizeBytes,
    )
    if (lengthBytes === 0) return
    if (start === offsetBytes && end === offsetBytes + lengthBytes) {
      this.#readAligned(target.subarray(0, lengthBytes), offsetBytes)
      return
    }
    const around = Buffer.allocUnsafe(end - start)
    this.#readAligned(around, start)
    around.copy(target, 0, offsetBytes - start, offsetBytes - start + lengthBytes)
  }

  #readAligned(target: Buffer, offsetBytes: number): void {
    const pieceBytes = Math.min(READ_BYTES, this.#export.maxBlockBytes)
    let asked = 0
    const done = { count: 0 }
    const pieces = Math.ceil(target.length / pieceBytes)
    while (done.count < pieces) {
      const window: { offsetBytes: number; target: Buffer }[] = []
      while (asked < pieces && asked - done.count < MAX_IN_FLIGHT) {
        const at = asked++ * pieceBytes
        window.push({ offsetBytes: offsetBytes + at, target: target.subarray(at, at + pieceBytes) })
      }
      this.#ask(window)
      this.#receiveReply(() => done.count++)
    }
  }

  #ask(window: readonly { readonly offsetBytes: number; readonly target: Buffer }[]): void {
    if (window.length === 0) return
    const requests = Buffer.alloc(window.length * REQUEST_BYTES)
    for (const [i, piece] of window.entries()) {
      const handle = ++this.#lastHandle
      this.#reads.set(handle, { ...piece, came: [], error: undefined })
      const lengthBytes = piece.target.length
      encodeRequest(
        { command: command.read, handle, offsetBytes: piece.offsetBytes, lengthBytes },
        requests,
        i * REQUEST_BYTES,
      )
    }
    this.#stream.send(requests)
  }

  /**
   * What a metadata context says of a range, ascending, without gaps, neighbours with equal flags joined. Step by step,
   * each as far as the server likes to answer.
   */
  *status(context: string, offsetBytes: number, endBytes: number): Generator<StatusExtent, void> {
    const id = this.#export.contextIds.get(context)
    if (id === undefined)
      throw new HotsiteError('nbd-failed', `the NBD server has no metadata context ${context}`)
    let at = offsetBytes
    let open: StatusExtent | undefined
    while (at < endBytes) {
      for (const extent of this.#askStatus(id, at, Math.min(endBytes - at, STATUS_BYTES))) {
        at = extent.offsetBytes + extent.lengthBytes
        if (open && open.flags === extent.flags)
          open = { ...open, lengthBytes: open.lengthBytes + extent.lengthBytes }
        else {
          if (open) yield open
          open = extent
        }
      }
    }
    if (open) yield open
  }

  #askStatus(contextId: number, offsetBytes: number, lengthBytes: number): readonly StatusExtent[] {
    const handle = ++this.#lastHandle
    const request = Buffer.alloc(REQUEST_BYTES)
    encodeRequest({ command: command.blockStatus, handle, offsetBytes, lengthBytes }, request, 0)
    const pending: PendingStatus = { offsetBytes, lengthBytes, extents: new Map(), error: undefined }
    this.#statuses.set(handle, pending)
    this.#stream.send(request)
    let isDone = false
    while (!isDone) this.#receiveReply(() => (isDone = true))
    const extents = pending.extents.get(contextId)
    if (!extents?.length) throw malformed('a block status without the context that was asked for')
    return extents
  }

  #receive(target: Buffer): Buffer {
    this.#stream.receive(target)
    return target
  }

  /** One message. `onDone`: a request has its whole answer. Throws what the server says of a request. */
  #receiveReply(onDone: () => void): void {
    const head = this.#head
    this.#receive(head.subarray(0, 4))
    const magic = head.readUInt32BE()
    if (magic === SIMPLE_REPLY_MAGIC) this.#receiveSimple(onDone)
    else if (magic === STRUCTURED_REPLY_MAGIC) this.#receiveChunk(onDone)
    else throw malformed('a reply without its magic')
  }

  #receiveSimple(onDone: () => void): void {
    this.#receive(this.#head.subarray(0, 12))
    const errno = this.#head.readUInt32BE()
    const handle = this.#head.readBigUInt64BE(4)
    const read = this.#reads.get(handle)
    if (!read) throw malformed('a simple reply to no read')
    this.#reads.delete(handle)
    if (errno !== 0) throw serverError(errno)
    if (read.came.length > 0) throw malformed('a simple reply after a structured one')
    this.#receive(read.target)
    onDone()
  }

  #receiveChunk(onDone: () => void): void {
    this.#receive(this.#head)
    const flags = this.#head.readUInt16BE()
    const type = this.#head.readUInt16BE(2)
    const handle = this.#head.readBigUInt64BE(4)
    const lengthBytes = this.#head.readUInt32BE(12)
    const isLast = (flags & CHUNK_DONE) !== 0
    const read = this.#reads.get(handle)
    const status = this.#statuses.get(handle)
    if (isErrorChunk(type)) {
      const error = this.#receiveError(lengthBytes)
      if (read) read.error ??= error
      if (status) status.error ??= error
    } else if (type === chunk.none && isLast && lengthBytes === 0) {
      // Only says that it is the last one.
    } else if (read && type === chunk.data) this.#receiveData(read, lengthBytes)
    else if (read && type === chunk.hole) this.#receiveHole(read, lengthBytes)
    else if (status && type === chunk.blockStatus) this.#receiveStatus(status, lengthBytes)
    else throw malformed(`a chunk of type ${type} that answers nothing`)
    if (!isLast) return
    if (!read && !status) throw malformed('the end of a reply to nothing')
    this.#reads.delete(handle)
    this.#statuses.delete(handle)
    const error = read?.error ?? status?.error
    if (error) throw error
    if (read && !isWhole(read)) throw malformed('a read with a gap in it')
    onDone()
  }

  #receiveError(lengthBytes: number): HotsiteError {
    if (lengthBytes < 6 || lengthBytes > MAX_ERROR_BYTES) throw malformed(`an error of ${lengthBytes} bytes`)
    const bytes = this.#receive(Buffer.alloc(lengthBytes))
    const messageBytes = bytes.readUInt16BE(4)
    if (messageBytes > lengthBytes - 6) throw malformed('an error that is cut off')
    return serverError(bytes.readUInt32BE(), bytes.toString('utf8', 6, 6 + messageBytes))
  }

  #receiveData(read: PendingRead, lengthBytes: number): void {
    if (lengthBytes <= 8) throw malformed('data without data')
    this.#receive(this.#head.subarray(0, 8))
    const start = Number(this.#head.readBigUInt64BE()) - read.offsetBytes
    const end = start + lengthBytes - 8
    took(read, start, end)
    this.#receive(read.target.subarray(start, end))
  }

  #receiveHole(read: PendingRead, lengthBytes: number): void {
    if (lengthBytes !== 12) throw malformed(`a hole of ${lengthBytes} bytes`)
    this.#receive(this.#head.subarray(0, 12))
    const start = Number(this.#head.readBigUInt64BE()) - read.offsetBytes
    const end = start + this.#head.readUInt32BE(8)
    took(read, start, end)
    read.target.fill(0, start, end)
  }

  /** The last extent may reach further than was asked. */
  #receiveStatus(status: PendingStatus, lengthBytes: number): void {
    if (lengthBytes < 12 || (lengthBytes - 4) % 8 !== 0 || lengthBytes > MAX_STATUS_BYTES)
      throw malformed(`a block status of ${lengthBytes} bytes`)
    const bytes = this.#receive(Buffer.alloc(lengthBytes))
    const contextId = bytes.readUInt32BE()
    if (status.extents.has(contextId)) throw malformed('two block statuses of one context')
    const extents: StatusExtent[] = []
    let at = status.offsetBytes
    const end = status.offsetBytes + status.lengthBytes
    for (let i = 4; i < lengthBytes; i += 8) {
      const extentBytes = bytes.readUInt32BE(i)
      if (extentBytes === 0 || at >= end) throw malformed('an extent that covers nothing')
      const cut = Math.min(extentBytes, end - at)
      extents.push({ offsetBytes: at, lengthBytes: cut, flags: bytes.readUInt32BE(i + 4) })
      at += cut
    }
    status.extents.set(contextId, extents)
  }

  [Symbol.dispose](): void {
    try {
      const request = Buffer.alloc(REQUEST_BYTES)
      encodeRequest(
        { command: command.disconnect, handle: ++this.#lastHandle, offsetBytes: 0, lengthBytes: 0 },
        request,
        0,
      )
      this.#stream.send(request)
    } catch {
      // It is gone already.
    }
    this.#stream[Symbol.dispose]()
  }
}

/** Throws when it lies outside of what was asked for, or came before. */
function took({ target, came }: PendingRead, start: number, end: number): void {
  if (!(start >= 0 && end > start && end <= target.length))
    throw malformed('data outside of what was asked for')
  if (came.some((piece) => start < piece.end && piece.start < end)) throw malformed('the same data twice')
  const at = came.findIndex((piece) => piece.start >= end)
  came.splice(at < 0 ? came.length : at, 0, { start, end })
  for (let i = came.length - 1; i > 0; i--) {
    const [below, above] = [came[i - 1], came[i]]
    if (below && above && below.end === above.start) {
      below.end = above.end
      came.splice(i, 1)
    }
  }
}

function isWhole({ target, came }: PendingRead): boolean {
  return came.length === 1 && came[0]?.start === 0 && came[0].end === target.length
}
