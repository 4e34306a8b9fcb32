import type { BlockBatch, DeltaHeader, DeltaWriter, ReplicaStore } from '#recovery-agent/replica/port.ts'

type Promised<Methods> = {
  readonly [Name in keyof Methods]: Methods[Name] extends (...args: infer Args) => infer Result
    ? (...args: Args) => Promise<Result>
    : Methods[Name]
}

/** The store lives in a worker: the same methods, each answer a promise. */
export type RemoteDeltaWriter = Promised<Omit<DeltaWriter, 'write'>> & {
  write(batch: BlockBatch): Promise<void>
}
export type RemoteStore = Promised<Omit<ReplicaStore, 'begin'>> & {
  begin(header: DeltaHeader): Promise<RemoteDeltaWriter>
}
