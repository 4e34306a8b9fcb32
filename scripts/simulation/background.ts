import type { World } from './world.ts'

/** Goes on while time does; the history is not over before it is. */
export function background(world: World, work: Promise<unknown>): void {
  world.pending++
  work
    .catch((error) =>
      world.truth.violate('engine', `an order failed: ${error instanceof Error ? error.stack : error}`),
    )
    .finally(() => {
      world.pending--
    })
}
