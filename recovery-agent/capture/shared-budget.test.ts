import { expect, test } from 'vitest'
import { SharedBudget } from './shared-budget.ts'

const turn = () => new Promise((resolve) => setImmediate(resolve))

/** Whether it was granted by now. */
async function isThrough(taking: Promise<void>): Promise<boolean> {
  let through = false
  void taking.then(() => {
    through = true
  })
  await turn()
  return through
}

test('what is held never exceeds the budget, and what is released lets the next one through', async () => {
  const budget = new SharedBudget(10)
  const user = budget.user()
  await user.take(7)
  const second = user.take(7)
  expect(await isThrough(second)).toBe(false)
  user.release(4)
  expect(await isThrough(second)).toBe(true)
  expect(user.heldBytes).toBe(10)
})

test('one that holds nothing goes before one that does', async () => {
  const budget = new SharedBudget(10)
  const [slow, other] = [budget.user(), budget.user()]
  await slow.take(6)
  const more = slow.take(6)
  expect(await isThrough(other.take(4))).toBe(true)
  expect(await isThrough(more)).toBe(false)
})

test('the end of a user gives everything back, also what it waits for', async () => {
  const budget = new SharedBudget(10)
  const [broken, other] = [budget.user(), budget.user()]
  await broken.take(10)
  const waiting = broken.take(5)
  broken.end()
  expect(await isThrough(waiting)).toBe(true)
  expect(await isThrough(other.take(10))).toBe(true)
  broken.release(10)
  expect(await isThrough(other.take(1))).toBe(false)
})

test('more than there is counts as all of it', async () => {
  expect(await isThrough(new SharedBudget(10).user().take(11))).toBe(true)
})
