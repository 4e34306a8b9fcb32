import { describe, expect, test } from 'vitest'
import { cycleSummary } from './cycle-log.ts'
import { parseOptions } from './options.ts'
import { isListening, parseBashTime, parseIoBytes, parseSentBytes, parseStatusKb } from './parse.ts'
import { tableOf } from './show.ts'

describe('what other programs print', () => {
  test.each([
    ['0.012 0.030\n', 0.042],
    ['Warning: something\n1.500 0.250\n', 1.75],
    ['1,500 0,250\n', 1.75],
    ['', undefined],
    ['rsync error: some files vanished (code 24)\n', undefined],
    ['0.012 0.030\nsomething printed last', undefined],
  ])('CPU seconds in %j', (stderr, expected) => {
    const parsed = parseBashTime(stderr)
    if (expected === undefined) expect(parsed).toBeUndefined()
    else expect(parsed).toBeCloseTo(expected, 6)
  })

  test('bytes sent by one interface', () => {
    const netDev = [
      'Inter-|   Receive                                                |  Transmit',
      ' face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed',
      '    lo: 1111 12 0 0 0 0 0 0 2222 34 0 0 0 0 0 0',
      '  eth0:333 1 0 0 0 0 0 0 444 1 0 0 0 0 0 0',
    ].join('\n')
    expect(parseSentBytes(netDev, 'lo')).toBe(2222)
    expect(parseSentBytes(netDev, 'eth0')).toBe(444)
    expect(() => parseSentBytes(netDev, 'eth1')).toThrow(/no interface eth1/)
  })

  test('a port counts as open only while something listens on it', () => {
    const procNetTcp = [
      '  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode',
      '   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1',
      '   1: 0100007F:1F91 0100007F:C000 01 00000000:00000000 00:00000000 00000000     0        0 2',
    ].join('\n')
    expect(isListening(procNetTcp, 0x1f90)).toBe(true)
    expect(isListening(procNetTcp, 0x1f91)).toBe(false)
    expect(isListening(procNetTcp, 0xc000)).toBe(false)
    expect(isListening(procNetTcp, 80)).toBe(false)
  })

  test('kB of a process, and bytes it read and wrote', () => {
    expect(parseStatusKb('Name:\tnode\nVmPeak:\t  99 kB\nVmHWM:\t  81234 kB\n', 'VmHWM')).toBe(81_234)
    expect(parseStatusKb('Name:\tnode\n', 'VmHWM')).toBeUndefined()
    expect(parseIoBytes('rchar: 100\nwchar: 23\nsyscr: 5\nread_bytes: 7\n')).toBe(123)
    expect(parseIoBytes('syscr: 5\n')).toBeNaN()
  })
})

describe('options', () => {
  test('the default is the comparison, on 2 GiB in three rounds', () => {
    expect(parseOptions([])).toMatchObject({
      mode: 'compare',
      sizeBytes: 2 * 2 ** 30,
      rounds: 3,
      workloads: ['W1-encrypted', 'W1-plain', 'W2', 'W3'],
    })
    expect(parseOptions(['--prune'])).toMatchObject({ mode: 'prune', sizeBytes: 20 * 2 ** 30, points: 40 })
    expect(parseOptions(['--memory', '--disks', '3'])).toMatchObject({
      mode: 'memory',
      diskBytes: 2 ** 40,
      disks: 3,
    })
  })

  test('sizes are whole MiB, so that every tool can make such a disk', () => {
    expect(parseOptions(['--gib', '0.1']).sizeBytes).toBe(102 * 2 ** 20)
  })

  test.each([
    [['--gib', 'much'], /--gib takes a number/],
    [['--rounds', '0'], /--rounds takes a number/],
    [['--workloads', 'W2,W9'], /not W9/],
    [['--fast'], /fast/],
  ])('%j is refused', (argv, message) => expect(() => parseOptions(argv)).toThrow(message))
})

describe('cycles seen from outside', () => {
  const cycle = (seq: number, capturedSeconds: number, ackedSeconds: number) => ({
    seq,
    capturedAtMs: capturedSeconds * 1000,
    ackedAtMs: ackedSeconds * 1000,
  })

  test('the longest from capture to acknowledgement, and the longest gap between captures', () => {
    const cycles = [cycle(1, 0, 100), cycle(2, 30, 32), cycle(3, 75, 80), cycle(4, 105, 106)]
    expect(cycleSummary(cycles)).toEqual({ cycles: 3, longestCycleSeconds: 5, longestGapSeconds: 45 })
  })

  test('nothing seen: nothing long', () => {
    expect(cycleSummary([])).toEqual({ cycles: 0, longestCycleSeconds: 0, longestGapSeconds: 0 })
    expect(cycleSummary([cycle(1, 0, 100)]).cycles).toBe(0)
  })
})

test('columns are as wide as their widest cell', () => {
  expect(
    tableOf([
      ['a', 'tool', '1'],
      ['long', 'b', '100'],
    ]),
  ).toBe('a     tool    1\nlong  b     100\n')
})
