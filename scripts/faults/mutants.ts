/**
 * Invariants broken on purpose, to see that the runs notice: `./scripts/chaos --break I2`. A mutant is a copy of the
 * sources with a line changed; the daemons of the run are started from the copy. mutants.test.ts keeps the lines alive.
 */
import { applyMutations, copySources, type Mutation } from '../mutation/mutate.ts'

export const mutants: Readonly<Record<'I2' | 'I3', readonly Mutation[]>> = {
  /** The base is released when the last batch was sent, instead of when the target has the point. */
  I2: [
    {
      file: 'recovery-agent/stream/source/send-delta.ts',
      find: '  await endDelta(transfer, {\n    epoch,\n    seq,\n    manifest: delta.manifest,',
      replace:
        '  await engine.acknowledge(vmId, seq)\n  await endDelta(transfer, {\n    epoch,\n    seq,\n    manifest: delta.manifest,',
    },
  ],
  /** Memory flips a bit in a received block now and then, and a point is made although its root is not the one signed. */
  I3: [
    {
      file: 'recovery-agent/replica/receiving/receiving-disk.ts',
      find: 'const whole = blocks.map((block, i) => this.#whole(block, blockIndexes[i]))',
      replace: `const whole = blocks.map((block, i) => {
      const spoiled = this.#whole(block, blockIndexes[i])
      if (!spoiled || Math.random() > 0.05) return spoiled
      const copy = Buffer.from(spoiled)
      copy.writeUInt8(copy.readUInt8(100) ^ 1, 100)
      return copy
    })`,
    },
    {
      file: 'recovery-agent/replica/receiving/receive.ts',
      find: 'if (diverging.length > 0) {',
      replace: 'if (diverging.length > 1_000_000) {',
    },
  ],
}

export type MutantName = keyof typeof mutants

export function isMutantName(name: string): name is MutantName {
  return name in mutants
}

/** Copies the sources to `dir`, which must not exist, and breaks them there. Answers the copy. */
export function makeMutant(name: MutantName, dir: string): string {
  copySources(dir)
  applyMutations(dir, mutants[name])
  return dir
}
