import { dirname, join } from 'node:path'
import { type Layer, readLayer } from '#shared/formats/qcow2/layer-reader.ts'
import type { ReplicaFiles } from '../files.ts'

/**
 * Opens a layer and everything it stands on, newest first, by the backing names in the files themselves, as a
 * hypervisor does. The files are closed when `use` returns.
 */
export function withChain<T>(
  files: ReplicaFiles,
  layerPath: string,
  use: (layers: readonly Layer[]) => T,
): T {
  const layers: Layer[] = []
  try {
    let path: string | null = layerPath
    while (path !== null) {
      const file = files.open(path, 'read')
      let layer: Layer
      try {
        layer = readLayer(file, path)
      } catch (error) {
        file.close()
        throw error
      }
      layers.push(layer)
      path = layer.header.backingName === null ? null : join(dirname(path), layer.header.backingName)
    }
    return use(layers)
  } finally {
    for (const { file } of layers) file.close()
  }
}
