import type { Logger } from '#shared/log.ts'
import { openRemoteReplicaStore, type ReplicaWorker } from '../replica/client.ts'

/** The replicas, in a worker of their own; what an earlier life left half done is finished first. */
export async function openStore({ dir, log }: { dir: string; log: Logger }): Promise<ReplicaWorker> {
  await using stack = new AsyncDisposableStack()
  const store = stack.use(openRemoteReplicaStore({ dir, log }))
  await store.recover()
  // It opened: from here on the caller owns it.
  stack.move()
  return store
}
