import { z } from 'zod'

/** A VM network that libvirt does not name itself. */
const hostNetwork = z.union([
  /** A bridge of the host. */
  z.strictObject({ name: z.string().min(1), bridge: z.string().min(1) }),
  /** A network between guests alone, carried by a multicast group: without any privilege, for labs. */
  z.strictObject({
    name: z.string().min(1),
    multicast: z.strictObject({ address: z.ipv4(), port: z.int().min(1).max(65_535) }),
  }),
  /** QEMU's user mode: guests reach out, nobody reaches in. For labs. */
  z.strictObject({ name: z.string().min(1), userMode: z.literal(true) }),
])
export type ConfiguredNetwork = z.infer<typeof hostNetwork>

const host = z.strictObject({
  /** As its recovery agent calls it (`hypervisor.host`). */
  name: z.string().min(1),
  /** The connection, as libvirt has it. */
  uri: z.string().min(1).default('qemu:///system'),
  /** The pool on whose file system replicas lie; absent: the one with the most room. */
  replicaPool: z.string().min(1).optional(),
  /** Beside the networks that libvirt has there. */
  networks: z.array(hostNetwork).default([]),
})
export type LibvirtHostConfig = z.infer<typeof host>

/** docs/libvirt-driver.md lists the keys. */
export const libvirtFabricConfig = z.strictObject({
  driver: z.literal('libvirt'),
  /** The name under which clouds and hosts of this provider are known. */
  vmmServer: z.string().min(1),
  clouds: z.array(z.strictObject({ name: z.string().min(1), hosts: z.array(host).min(1) })).min(1),
  /** Names for storage pools; absent: each pool is a classification of its own name. */
  classifications: z
    .array(z.strictObject({ name: z.string().min(1), pools: z.array(z.string().min(1)).min(1) }))
    .optional(),
})
export type LibvirtFabricConfig = z.infer<typeof libvirtFabricConfig>
