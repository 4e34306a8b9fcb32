/** What other programs print. Pure. */

/** User plus system seconds from the last line, as bash's `time` prints it with TIMEFORMAT='%U %S'; undefined: none there. */
export function parseBashTime(stderr: string): number | undefined {
  const last = stderr.trimEnd().split('\n').at(-1) ?? ''
  const found = /^(\d+[.,]\d+) (\d+[.,]\d+)$/.exec(last.trim())
  if (!found) return undefined
  const seconds = (text: string | undefined) => Number(text?.replace(',', '.'))
  return seconds(found[1]) + seconds(found[2])
}

/** kB of a field of /proc/<pid>/status, such as VmHWM; undefined: no such field. */
export function parseStatusKb(status: string, field: string): number | undefined {
  const found = new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(status)
  return found ? Number(found[1]) : undefined
}

/** The bytes that an interface has sent, from /proc/net/dev: the ninth number of its line. */
export function parseSentBytes(netDev: string, name: string): number {
  const line = netDev.split('\n').find((candidate) => candidate.trim().startsWith(`${name}:`))
  const sent = line
    ?.slice(line.indexOf(':') + 1)
    .trim()
    .split(/\s+/)[8]
  if (sent === undefined) throw new Error(`no interface ${name} in /proc/net/dev`)
  return Number(sent)
}

/** Whether /proc/net/tcp has a socket in state LISTEN (0A) on the port, at whatever address. */
export function isListening(procNetTcp: string, port: number): boolean {
  const local = `:${port.toString(16).toUpperCase().padStart(4, '0')}`
  return procNetTcp.split('\n').some((line) => {
    const [, address, , state] = line.trim().split(/\s+/)
    return address?.endsWith(local) === true && state === '0A'
  })
}

/** Bytes a process asked to read and to write, from /proc/<pid>/io (rchar and wchar). */
export function parseIoBytes(io: string): number {
  const field = (name: string) => Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(io)?.[1] ?? Number.NaN)
  return field('rchar') + field('wchar')
}
