import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { openBuffer } from '../buffer/buffer.ts'
import { createCaptureEngine } from './engine.ts'
import type { EngineDeps } from './engine-deps.ts'
import type { CaptureEngine } from './port.ts'

/** The engine on `<dataDir>/buffer.db`, in this thread. The agent runs it in a worker: client.ts. */
export async function openCaptureEngine({
  dataDir,
  ...deps
}: Omit<EngineDeps, 'buffer'> & { readonly dataDir: string }): Promise<CaptureEngine> {
  mkdirSync(dataDir, { recursive: true, mode: 0o700 })
  const buffer = openBuffer(join(dataDir, 'buffer.db'))
  try {
    return await createCaptureEngine({ ...deps, buffer })
  } catch (error) {
    buffer.close()
    throw error
  }
}
