import type { Channel } from '../channel/port.ts'
import type { Endpoint } from '../config.ts'
import { HotsiteError } from '../errors/hotsite-error.ts'

/** Tries the addresses in order; the first that answers wins, else the last failure is thrown. */
export async function dialAny<Address extends Endpoint>(
  addresses: readonly Address[],
  dial: (address: Address) => Promise<Channel>,
): Promise<Channel> {
  let failure: unknown = new HotsiteError('target-unreachable', 'there is no address to connect to')
  for (const address of addresses) {
    try {
      return await dial(address)
    } catch (error) {
      failure = error
    }
  }
  throw failure
}
