/** Tickets: who may send which VM at which epoch to whom, until when (DESIGN §4). Signed by the vault key. */
import { decodeDocument, encodeDocument } from '../channel/codec.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'
import { type ServerId, serverId, type VaultId, type VmId, vaultId, vmId } from '../ids.ts'
import { openSigned, signDocument } from './signed-document.ts'

export interface TicketScope {
  readonly vaultId: VaultId
  readonly vmId: VmId
  readonly epoch: number
  readonly sourceServerId: ServerId
  readonly targetServerId: ServerId
}

export interface Ticket extends TicketScope {
  readonly issuedAtMs: number
  readonly expiresAtMs: number
}

export function issueTicket(ticket: Ticket, vaultSecretKey: Uint8Array): Uint8Array {
  return signDocument('ticket', encodeDocument('ticket', ticket), vaultSecretKey)
}

export interface VerifyTicketInput {
  readonly encoded: Uint8Array
  readonly vaultPublicKey: Uint8Array
  readonly nowMs: number
  /** What is about to happen; the ticket must say exactly this. */
  readonly scope: TicketScope
}

/** Throws `signature-invalid`, `ticket-invalid`, `ticket-expired`. */
export function verifyTicket({ encoded, vaultPublicKey, nowMs, scope }: VerifyTicketInput): Ticket {
  const ticket = decode(openSigned('ticket', encoded, vaultPublicKey))
  const fields = ['vaultId', 'vmId', 'epoch', 'sourceServerId', 'targetServerId'] as const
  for (const field of fields) {
    if (ticket[field] !== scope[field])
      throw new HotsiteError(
        'ticket-invalid',
        `the ticket is for ${field} ${ticket[field]}, this is ${scope[field]}`,
        { details: { field, ticket: ticket[field], request: scope[field] } },
      )
  }
  if (nowMs >= ticket.expiresAtMs)
    throw new HotsiteError(
      'ticket-expired',
      `the ticket for VM ${ticket.vmId} expired at ${new Date(ticket.expiresAtMs).toISOString()}`,
      { details: { expiresAtMs: ticket.expiresAtMs, nowMs } },
    )
  return ticket
}

function decode(document: Uint8Array): Ticket {
  try {
    const raw = decodeDocument('ticket', document)
    if (raw.expiresAtMs > 8.64e15) throw new Error('the expiry is no date')
    return {
      vaultId: vaultId.parse(raw.vaultId),
      vmId: vmId.parse(raw.vmId),
      epoch: raw.epoch,
      sourceServerId: serverId.parse(raw.sourceServerId),
      targetServerId: serverId.parse(raw.targetServerId),
      issuedAtMs: raw.issuedAtMs,
      expiresAtMs: raw.expiresAtMs,
    }
  } catch (error) {
    throw new HotsiteError('ticket-invalid', 'the ticket cannot be read', { cause: error })
  }
}
