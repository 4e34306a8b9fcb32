import { createHash } from 'node:crypto'
import type { FabricVmId } from '../ids.ts'

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/

/**
 * libvirt knows a VM by its UUID. Ids that are none, as the coordinator gives them to VMs it has defined, become one of
 * version 8 (RFC 9562 section 5.8), always the same.
 */
export function domainUuid(id: FabricVmId): string {
  if (UUID.test(id)) return id
  const bytes = createHash('sha256').update(`hotsite fabric VM ${id}`).digest().subarray(0, 16)
  bytes.writeUInt8((bytes.readUInt8(6) & 0x0f) | 0x80, 6)
  bytes.writeUInt8((bytes.readUInt8(8) & 0x3f) | 0x80, 8)
  return bytes.toString('hex').replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, '$1-$2-$3-$4-$5')
}
