import { z } from 'zod'

declare const brand: unique symbol
type Brand<Name extends string> = string & { readonly [brand]: Name }

export type VaultId = Brand<'VaultId'>
export type ServerId = Brand<'ServerId'>
/** A VM as its fabric knows it: unique within one VMM server. */
export type FabricVmId = Brand<'FabricVmId'>
/** A protected VM: the key of everything replicated. The id of the VM that was first protected; failover keeps it. */
export type VmId = Brand<'VmId'>
export type DiskId = Brand<'DiskId'>
export type JobId = Brand<'JobId'>
export type CommandId = Brand<'CommandId'>
export type PairingId = Brand<'PairingId'>
export type OverlayId = Brand<'OverlayId'>

/** Ids become folder and file names: no separators, no leading dot, at most 80 characters. */
const idPattern = /^[A-Za-z0-9_][A-Za-z0-9_.:-]{0,79}$/

function idSchema<Id extends string>(name: string) {
  return z
    .string()
    .regex(idPattern, `${name}: letters, digits, "_", ".", ":" and "-", at most 80`) as unknown as z.ZodType<
    Id,
    string
  >
}

export const vaultId = idSchema<VaultId>('vault id')
export const serverId = idSchema<ServerId>('server id')
export const fabricVmId = idSchema<FabricVmId>('fabric VM id')
export const vmId = idSchema<VmId>('VM id')
export const diskId = idSchema<DiskId>('disk id')
export const jobId = idSchema<JobId>('job id')
export const commandId = idSchema<CommandId>('command id')
export const pairingId = idSchema<PairingId>('pairing id')
export const overlayId = idSchema<OverlayId>('overlay id')
