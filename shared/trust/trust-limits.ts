/** Limits of registration (I13), each with its reason. */
export const registrationLimits = {
  /** DESIGN §4: long enough to carry the file to a server, short enough for one forgotten on a share. */
  credentialsLifetimeMs: 5 * 86_400_000,
  /** Servers without NTP drift by minutes; hours mean a wrong time zone or a dead clock battery. */
  maxClockSkewMs: 15 * 60_000,
  /** A request is about 1 KiB. */
  maxRequestBytes: 16 * 1024,
  /** A reply holds a membership, a certificate and addresses: about 3 KiB. */
  maxReplyBytes: 64 * 1024,
  /** Connection, TLS handshake and request each; also what the client waits for an answer. */
  stepTimeoutMs: 10_000,
  /** Open registrations at one time. */
  maxConnections: 64,
  /** Failures from one address within the window before it has to wait. */
  maxFailures: 10,
  failureWindowMs: 60_000,
  /** Addresses remembered; the oldest is forgotten first. */
  maxTrackedAddresses: 1024,
  /**
   * As long as a vault certificate may live. Removal and regeneration act at once; the end of a membership is the last
   * resort, and one that comes unnoticed would stop replication (I12). Renewed from its last third on.
   */
  membershipLifetimeMs: 3 * 365 * 86_400_000,
} as const
