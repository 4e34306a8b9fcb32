import type { BlockFile } from '../../block-file.ts'

/** A file in memory. */
export function memoryFile(): BlockFile & { bytes(): Buffer } {
  let content = Buffer.alloc(0)
  const resize = (sizeBytes: number) => {
    const resized = Buffer.alloc(sizeBytes)
    content.copy(resized)
    content = resized
  }
  return {
    bytes: () => content,
    read(target, offsetBytes) {
      target.fill(0)
      content.copy(target, 0, Math.min(offsetBytes, content.length))
    },
    write(buffers, offsetBytes) {
      const bytes = Buffer.concat(buffers)
      if (offsetBytes + bytes.length > content.length) resize(offsetBytes + bytes.length)
      bytes.copy(content, offsetBytes)
    },
    sync: () => {},
    truncate: resize,
    sizeBytes: () => content.length,
    punchHole(offsetBytes, lengthBytes) {
      content.fill(0, offsetBytes, offsetBytes + lengthBytes)
    },
    close: () => {},
  }
}
