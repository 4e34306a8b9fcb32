import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { type DeltaBuffer, openBuffer, replaceBuffer } from '../buffer/buffer.ts'
import { isFileDamage } from '../buffer/damaged-file.ts'
import { createCaptureEngine } from './engine.ts'
import type { EngineDeps } from './engine-deps.ts'
import type { CaptureEngine } from './port.ts'

/** The engine on `<dataDir>/buffer.db`, in this thread. The agent runs it in a worker: client.ts. */
export async function openCaptureEngine({
  dataDir,
  ...deps
}: Omit<EngineDeps, 'buffer'> & { readonly dataDir: string }): Promise<CaptureEngine> {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const path = join(dataDir, 'buffer.db')
  const replace = (damaged: DeltaBuffer, error: unknown) => replaceDamaged(path, damaged, error)
  const create = (buffer: DeltaBuffer) => createCaptureEngine({ ...deps, buffer, replaceBuffer: replace })
  let buffer = openBuffer(path)
  try {
    return await create(buffer).catch((error: unknown) => {
      // Damage that shows only when the rows are read.
      if (!isFileDamage(error)) throw error
      buffer = replace(buffer, error)
      return create(buffer)
    })
  } catch (error) {
    buffer.close()
    throw error
  }
}

function replaceDamaged(path: string, damaged: DeltaBuffer, error: unknown): DeltaBuffer {
  // Closing writes nothing that is worth an error: the file goes.
  try {
    damaged.close()
  } catch {}
  return replaceBuffer(path, error instanceof Error ? error.message : String(error), error)
}
