import { noCrash } from '#shared/crash-point.ts'
import type { AgentOptions } from './agent.ts'
import type { DeltaWriter } from './replica/port.ts'
import { openReplicaStore } from './replica/store.ts'
import type { RemoteDeltaWriter, RemoteStore } from './stream/target/remote-store.ts'

export async function openStore({ config, clock, log, crashPoint }: AgentOptions): Promise<{
  readonly store: RemoteStore
  readonly dispose: () => Promise<void>
}> {
  const store = openReplicaStore({ dir: config.replicaDir, clock, log, crashPoint: crashPoint ?? noCrash })
  store.recover()
  const writer = (inner: DeltaWriter): RemoteDeltaWriter => ({
    resume: inner.resume,
    write: async (batch) => inner.write(batch),
    sync: async () => inner.sync(),
    seal: async (manifest) => inner.seal(manifest),
    close: async () => inner.close(),
  })
  return {
    store: {
      recover: async () => store.recover(),
      list: async () => store.list(),
      get: async (...args) => store.get(...args),
      prepare: async (...args) => store.prepare(...args),
      adopt: async (...args) => store.adopt(...args),
      raiseEpoch: async (...args) => store.raiseEpoch(...args),
      setPolicy: async (...args) => store.setPolicy(...args),
      begin: async (header) => writer(store.begin(header)),
      discardPartial: async (...args) => store.discardPartial(...args),
      treeNodes: async (...args) => store.treeNodes(...args),
      points: async (...args) => store.points(...args),
      pin: async (...args) => store.pin(...args),
      prune: async (...args) => store.prune(...args),
      createOverlay: async (...args) => store.createOverlay(...args),
      removeOverlay: async (...args) => store.removeOverlay(...args),
      commit: async (...args) => store.commit(...args),
      remove: async (...args) => store.remove(...args),
      layerPath: async (...args) => store.layerPath(...args),
      usage: async (...args) => store.usage(...args),
    },
    dispose: async () => store[Symbol.dispose](),
  }
}
