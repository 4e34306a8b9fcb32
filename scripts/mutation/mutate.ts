/**
 * Invariants broken on purpose, to see that checks notice: a mutant is a copy of the sources with some lines changed,
 * and whatever is run for it is run from the copy.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

export interface Mutation {
  readonly file: string
  /** Occurs once. */
  readonly find: string
  readonly replace: string
}

export const repository: string = fileURLToPath(new URL('../..', import.meta.url))

/** Throws when the line is not there, or is not the only one. */
export function mutate(source: string, { find, replace, file }: Mutation): string {
  if (source.split(find).length !== 2)
    throw new Error(`the mutation of ${file} does not fit its source any more`)
  return source.replace(find, () => replace)
}

/** Copies the sources to `dir`, which must not exist. Answers the copy. */
export function copySources(dir: string): string {
  const files = execFileSync('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: repository,
  })
  execFileSync('mkdir', ['-p', join(dir, 'proto')])
  execFileSync('sh', ['-c', 'xargs -0 -r cp --parents -t "$0" 2>/dev/null || true', dir], {
    cwd: repository,
    input: files,
  })
  symlinkSync(join(repository, 'node_modules'), join(dir, 'node_modules'))
  symlinkSync(join(repository, 'proto', 'gen'), join(dir, 'proto', 'gen'))
  return dir
}

/** Answers what undoes it. */
export function applyMutations(dir: string, mutations: readonly Mutation[]): () => void {
  const before = new Map<string, string>()
  for (const mutation of mutations) {
    const path = join(dir, mutation.file)
    const source = readFileSync(path, 'utf8')
    if (!before.has(path)) before.set(path, source)
    writeFileSync(path, mutate(source, mutation))
  }
  return () => {
    for (const [path, source] of before) writeFileSync(path, source)
  }
}
