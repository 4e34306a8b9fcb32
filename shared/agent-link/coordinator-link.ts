import { dialChannel } from '../channel/dial.ts'
import { type Backoff, defaultBackoff, keepConnected } from '../channel/keep-connected.ts'
import type { ChannelLimits } from '../channel/limits.ts'
import type { Clock } from '../clock.ts'
import type { Logger } from '../log.ts'
import type { CommandHandlers, CommandKind } from '../messages/commands.ts'
import type { Rng } from '../rng.ts'
import type { ServerIdentity } from '../trust/identity-store.ts'
import type { CommandResultStore } from './command-results.ts'
import { createCommandRunner } from './command-runner.ts'
import { dialAny } from './dial-any.ts'
import type { ReportOutbox } from './report-outbox.ts'
import { serveCoordinator } from './serve-coordinator.ts'

export interface CoordinatorLinkOptions<Kinds extends CommandKind> {
  readonly identity: ServerIdentity
  /** The commands this daemon carries out; any other is answered with `command-unknown`. */
  readonly kinds: readonly Kinds[]
  readonly handlers: CommandHandlers<Kinds>
  readonly store: CommandResultStore
  readonly reports: ReportOutbox
  readonly clock: Clock
  readonly rng: Rng
  readonly log: Logger
  /** Ends the link, and aborts the commands that are running. */
  readonly signal: AbortSignal
  readonly backoff?: Backoff | undefined
  readonly limits?: Partial<ChannelLimits> | undefined
}

/**
 * Keeps an agent connected to its coordinator until the signal: receives commands, runs each once, answers, and
 * brings every report over. While the coordinator is away nothing stops and nothing is lost (I12): running commands go
 * on, their results are remembered, and after the reconnect every state is reported once more.
 */
export async function runCoordinatorLink<Kinds extends CommandKind>(
  options: CoordinatorLinkOptions<Kinds>,
): Promise<void> {
  const { identity, reports, clock, rng, signal } = options
  const log = options.log.with({ link: 'coordinator' })
  const runner = createCommandRunner({ ...options, log })
  await keepConnected({
    clock,
    rng,
    log,
    signal,
    backoff: options.backoff ?? defaultBackoff,
    dial: (dialSignal) =>
      dialAny(identity.channelAddresses, ({ host, port }) =>
        dialChannel({
          host,
          port,
          pinnedCertificatePem: identity.coordinatorCertificatePem,
          self: identity,
          vaultPublicKey: identity.vaultPublicKey,
          generation: identity.generation,
          expectPeer: { kind: 'coordinator' },
          clock,
          log,
          signal: dialSignal,
          limits: options.limits,
        }),
      ),
    onChannel: (channel) => serveCoordinator({ channel, runner, reports, log }),
  })
}
