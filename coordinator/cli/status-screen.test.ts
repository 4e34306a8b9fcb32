import { expect, it } from 'vitest'
import { sampleVm } from '#coordinator/admin/testing/sample-views.ts'
import type { StatusView } from '#coordinator/admin/views.ts'
import { statusLines } from './status-screen.ts'
import { painter } from './text/style.ts'

const view = (changes: Partial<StatusView>): StatusView => ({
  vault: 'main',
  nowMs: 0,
  version: '0.1.0',
  verdict: 'safe',
  servers: { total: 4, connected: 4 },
  vms: [sampleVm()],
  needsAttention: [],
  ...changes,
})
const shown = (changes: Partial<StatusView>) =>
  statusLines(view(changes), { width: 120, paint: painter(false) }).join('\n')

it('a VM that a failover moved is not counted as protected, nor as one without a recovery point', () => {
  const moved = sampleVm({ state: 'committed', dataAgeMs: null, points: 2 })
  const first = shown({ verdict: 'attention', vms: [moved] }).split('\n')[0]
  expect(first).toBe('ATTENTION  0 VMs protected, 1 failed over and not replicated, 4 of 4 servers connected')
})

it('a VM that never had a point is said to have none', () => {
  const young = sampleVm({ state: 'initialReplication', dataAgeMs: null, points: 0 })
  expect(shown({ vms: [young] })).toContain('1 VM protected, 1 without a recovery point')
})

it('a reason that is in the list of what needs a person is not told twice', () => {
  const vm = sampleVm({ healthReasons: ['replication is paused', 'the buffer is 90 % full'] })
  const needsAttention = [
    { severity: 'warning' as const, text: `${vm.name}: replication is paused`, command: null },
  ]
  const text = shown({ vms: [vm], needsAttention })
  expect(text.split('replication is paused')).toHaveLength(2)
  expect(text.split('the buffer is 90 % full')).toHaveLength(2)
})

it('what can wait does not stand under "Needs a person"', () => {
  const needsAttention = [
    { severity: 'info' as const, text: 'shop: failover was never tested', command: null },
  ]
  expect(shown({ needsAttention })).not.toContain('Needs a person')
  expect(shown({ needsAttention })).toContain('When there is time:\n  · shop: failover was never tested')
})

it('a VM that nobody protects is named, with the command', () => {
  const plain = sampleVm({ vmId: null, name: 'mail', state: 'none' })
  expect(shown({ vms: [sampleVm(), plain] })).toContain(
    '1 VM is not protected: mail\n    hotsite vm protect mail',
  )
})

it('a VM that is being protected is not said to need it', () => {
  const young = sampleVm({ vmId: null, name: 'mail', state: 'unprotected', currentJob: 'job-1' })
  expect(shown({ vms: [sampleVm(), young] })).not.toContain('not protected')
})
