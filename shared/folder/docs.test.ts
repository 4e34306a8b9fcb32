/** The examples of docs/folder-driver.md are what the schemas accept. */
import { readFileSync } from 'node:fs'
import { expect, test } from 'vitest'
import { parse } from 'yaml'
import { fabricFile, hostFile, vmFile } from './schema.ts'

const text = readFileSync(new URL('../../docs/folder-driver.md', import.meta.url), 'utf8')
const examples = [...text.matchAll(/```yaml\n([\s\S]*?)```/g)].map((match): unknown => parse(match[1] ?? ''))

test('every example is valid', () => {
  const [fabric, host, vm, smallest] = examples
  expect(fabricFile.parse(fabric).clouds[0]?.hosts).toEqual(['host-a1'])
  expect(hostFile.parse(host).cpuCount).toBe(8)
  expect(vmFile.parse(vm).disks).toHaveLength(2)
  expect(vmFile.shape.command.parse((smallest as { command: unknown }).command)).toHaveLength(3)
})

test('every key of the three files is named', () => {
  const keys = [fabricFile, hostFile, vmFile].flatMap((schema) => Object.keys(schema.shape))
  expect(keys.filter((key) => !new RegExp(`\\b${key}:`).test(text))).toEqual([])
})
