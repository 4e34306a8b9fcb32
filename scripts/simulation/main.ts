import { runHistory } from './history.ts'

const seed = Number(process.argv[2] ?? 1)
const report = await runHistory({
  seed,
  ...(process.argv[3] ? { trace: (line: string) => void process.stdout.write(`${line}\n`) } : {}),
})
process.stdout.write(`${JSON.stringify(report, null, 1)}\n`)
