import packageJson from '../package.json' with { type: 'json' }

/** Of this program, as it reports itself. */
export const programVersion: string = packageJson.version
