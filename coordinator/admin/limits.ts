/** Every bound of the admin socket (I13). */
export const adminLimits = {
  /** The largest request is a certificate: a few KiB. */
  maxRequestBytes: 256 * 1024,
  /** Console, CLI calls and watchers of one machine's administrators. */
  maxConnections: 128,
  /** A client that dribbles its request is cut off. */
  requestTimeoutMs: 10_000,
  /** How long a stopping coordinator waits for requests under way. */
  closeGraceMs: 2_000,
  /** `sun_path` is 108 bytes with its final zero on Linux, 104 on macOS. */
  maxSocketPathBytes: 103,
  /** A socket whose process is alive answers a connect at once. */
  probeTimeoutMs: 1_000,
  maxListed: 1_000,
  maxNameCharacters: 200,
} as const

/** Of an exported seed. Fewer bytes make many files; a file system for every stick takes less than 4 GiB in one. */
export const seedPartBytes = { least: 32 * 2 ** 20, usual: 4 * 2 ** 30 - 2 ** 20, most: 2 ** 40 } as const
