/** Links between the markdown files of the repository lead somewhere, headings included. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'

const root = fileURLToPath(new URL('../..', import.meta.url))
const listed = execFileSync('git', ['ls-files', '--cached', '--others', '--exclude-standard', '*.md'], {
  cwd: root,
  encoding: 'utf8',
})
const pages = listed.split('\n').filter((path) => path !== '' && existsSync(join(root, path)))

/** Without code, where brackets and slashes mean something else. */
const proseOf = (text: string) => text.replace(/^```[\s\S]*?^```/gm, '').replace(/`[^`\n]*`/g, '')

/** As GitHub makes them of headings. */
function anchorsOf(text: string): ReadonlySet<string> {
  const headings = [...text.replace(/^```[\s\S]*?^```/gm, '').matchAll(/^#+ (.+)$/gm)]
  return new Set(
    headings.map(([, title = '']) =>
      title
        .toLowerCase()
        .replace(/[^\p{L}\p{N} _-]/gu, '')
        .replaceAll(' ', '-'),
    ),
  )
}

function brokenLinks(page: string): string[] {
  const text = readFileSync(join(root, page), 'utf8')
  return [...proseOf(text).matchAll(/\]\(([^)\s]+)\)/g)].flatMap(([, link = '']) => {
    if (/^(https?|mailto):/.test(link)) return []
    const [path = '', anchor] = link.split('#')
    const target = path === '' ? join(root, page) : join(root, dirname(page), path)
    if (relative(root, target).startsWith('..') || !existsSync(target)) return [link]
    const known = anchor === undefined || anchorsOf(readFileSync(target, 'utf8')).has(anchor)
    return known ? [] : [link]
  })
}

/** Files of the repository that prose names in code, as `scripts/lab` or `docs/errors.md`. */
function missingFiles(page: string): string[] {
  const text = readFileSync(join(root, page), 'utf8')
  const named = text.matchAll(
    /`(?:\.\/)?((?:docs|scripts|proto|shared|coordinator|provider-agent|recovery-agent)\/[\w./-]+\.(?:ts|md|proto))(?=[ `])/g,
  )
  return [...named].map(([, path = '']) => path).filter((path) => !existsSync(join(root, path)))
}

it('there are pages to look at', () => {
  expect(pages).toContain('README.md')
  expect(pages.length).toBeGreaterThan(5)
})

it.each(pages)('%s', (page) => {
  expect({ links: brokenLinks(page), files: missingFiles(page) }).toEqual({ links: [], files: [] })
})
