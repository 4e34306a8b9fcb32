export type Style = 'plain' | 'good' | 'warn' | 'bad' | 'dim' | 'bold'

/** Colour never carries meaning of its own: every word is there without it. */
const codes: Readonly<Record<Style, string>> = {
  plain: '',
  good: '\u001b[32m',
  warn: '\u001b[33m',
  bad: '\u001b[31m',
  dim: '\u001b[2m',
  bold: '\u001b[1m',
}

export type Paint = (style: Style, text: string) => string

export function painter(colours: boolean): Paint {
  return (style, text) => (colours && style !== 'plain' ? `${codes[style]}${text}\u001b[0m` : text)
}

/** Names come from fabrics and guests: none of them may steer the terminal. */
export function visible(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what is looked for
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u202a-\u202e\u2066-\u2069]/g, '\u{fffd}')
}
