/** Observations age in between; a change is reported at once. */
export const REFRESH_MS = 5_000
/** Added for each VM, so that a fabric of thousands does not fill the link with what is unchanged. */
export const REFRESH_PER_VM_MS = 20
/** The longest pause between two connection attempts, by default. */
export const BACKOFF_MAX_MS = 60_000
