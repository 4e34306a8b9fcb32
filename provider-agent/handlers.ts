import type { CommandHandlers, ProviderCommandKind } from '#shared/messages/commands.ts'
import { MAX_SCREENSHOT_BASE64, providerCommands } from '#shared/messages/commands.ts'
import type { Fabric } from './fabric/port.ts'

export const providerCommandKinds = Object.keys(providerCommands) as ProviderCommandKind[]

/** Every command of a provider is one operation of its fabric, and its result what the fabric saw afterwards (I8). */
export function providerHandlers(fabric: Fabric): CommandHandlers<ProviderCommandKind> {
  return {
    // A provider has no peers: it speaks to the coordinator alone, which refuses removed servers itself.
    'trust.update': async () => ({}),
    'vm.define': (request) => fabric.define(request),
    'vm.start': ({ fabricVmId, heartbeatTimeoutMs }, signal) =>
      fabric.start(fabricVmId, heartbeatTimeoutMs, signal),
    'vm.shutDown': ({ fabricVmId, timeoutMs }, signal) => fabric.shutDown(fabricVmId, timeoutMs, signal),
    'vm.stop': ({ fabricVmId }) => fabric.stop(fabricVmId),
    'vm.remove': ({ fabricVmId }) => fabric.remove(fabricVmId),
    'vm.screenshot': async ({ fabricVmId }) => {
      const pngBase64 = (await fabric.screenshot(fabricVmId))?.toString('base64') ?? null
      return { pngBase64: pngBase64 && pngBase64.length <= MAX_SCREENSHOT_BASE64 ? pngBase64 : null }
    },
    'vm.observe': ({ fabricVmId }) => fabric.observe(fabricVmId),
    'vm.fence': ({ fabricVmId, epoch, reason }) => fabric.fence(fabricVmId, epoch, reason),
    'vm.unfence': ({ fabricVmId }) => fabric.unfence(fabricVmId),
  }
}
