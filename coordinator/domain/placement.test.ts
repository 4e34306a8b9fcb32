import { describe, expect, it } from 'vitest'
import { mapNics, misplacedNics, testNics } from './network-mapping.ts'
import { type PlacementHost, type PlacementNeed, place } from './placement.ts'

const gib = 2 ** 30
const host = (name: string, changes: Partial<PlacementHost> = {}): PlacementHost => ({
  name,
  networks: ['green'],
  classifications: [],
  agent: { connected: true, replicaFreeBytes: 100 * gib },
  ...changes,
})
const need: PlacementNeed = {
  sizeBytes: 50 * gib,
  networks: ['green'],
  classification: null,
  sourceHost: null,
}

describe('placement', () => {
  it('takes the host with most room and says why the others lost', () => {
    const hosts = [
      host('small', { agent: { connected: true, replicaFreeBytes: 60 * gib } }),
      host('large', { agent: { connected: true, replicaFreeBytes: 900 * gib } }),
      host('full', { agent: { connected: true, replicaFreeBytes: 54 * gib } }),
      host('away', { agent: { connected: false, replicaFreeBytes: 999 * gib } }),
      host('bare', { agent: null }),
      host('elsewhere', { networks: ['red'] }),
    ]
    const { chosen, verdicts } = place(hosts, need)
    expect(chosen).toBe('large')
    expect(Object.fromEntries(verdicts.map((verdict) => [verdict.host, verdict.note]))).toEqual({
      large: 'chosen, 900.0 GiB free',
      small: 'large has more room (900.0 GiB against 60.0 GiB)',
      full: '54.0 GiB free, 55.0 GiB needed',
      away: 'its recovery agent is not connected',
      bare: 'no recovery agent is registered',
      elsewhere: 'cannot reach green',
    })
    expect(verdicts[0]?.host).toBe('large')
  })
  it('prefers the classification of the source over room', () => {
    const hosts = [
      host('roomy', { agent: { connected: true, replicaFreeBytes: 500 * gib } }),
      host('fast', { classifications: ['gold'] }),
    ]
    expect(place(hosts, { ...need, classification: 'gold' }).chosen).toBe('fast')
  })
  it('never the host the VM runs on', () => {
    expect(place([host('only')], { ...need, sourceHost: 'only' })).toMatchObject({ chosen: null })
  })
  it('ties are broken by name, so that the same question has the same answer', () => {
    expect(place([host('b'), host('a')], need).chosen).toBe('a')
  })
  it('no hosts: nothing', () => {
    expect(place([], need)).toEqual({ chosen: null, verdicts: [] })
  })
})

describe('network mapping', () => {
  const nics = [
    { name: 'eth0', network: 'blue' },
    { name: 'eth1', network: 'storage' },
    { name: 'eth2', network: null },
  ]
  it('maps what is mapped; the rest is unconnected and named', () => {
    expect(mapNics(nics, { blue: 'green' })).toEqual({
      nics: [
        { name: 'eth0', network: 'green' },
        { name: 'eth1', network: null },
        { name: 'eth2', network: null },
      ],
      unmapped: ['storage'],
    })
  })
  it('a network named like a property of objects is not mapped by accident', () => {
    expect(mapNics([{ name: 'e', network: 'constructor' }], {}).unmapped).toEqual(['constructor'])
  })
  it('a test is on the network chosen for it, or on none', () => {
    expect(testNics(nics, 'lab').every(({ network }) => network === 'lab')).toBe(true)
    expect(testNics(nics, null).every(({ network }) => network === null)).toBe(true)
  })
  it('tells which NIC is not where it should be', () => {
    expect(misplacedNics(nics, nics)).toEqual([])
    expect(
      misplacedNics(
        nics,
        [{ name: 'eth0', network: null }, nics[2] ?? nics[0]].flatMap((nic) => nic ?? []),
      ),
    ).toEqual(['eth0: on no network instead of blue', 'eth1: missing'])
  })
})
