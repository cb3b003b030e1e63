"""The style of the download page: no fonts, pictures or scripts from anywhere."""

from __future__ import annotations

from typing import Final

STYLE: Final = """\
:root {
  color-scheme: light dark;
  --paper: #fdfdfb; --ink: #1d1f21; --quiet: #5c6166; --line: #d9dadd; --box: #f1f2ee;
  --link: #0b57a4; --good: #17642c; --bad: #9d2020;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #16181a; --ink: #e3e4e6; --quiet: #9ba1a8; --line: #383c41; --box: #212427;
    --link: #86b8f0; --good: #83cf97; --bad: #f09a94;
  }
}
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body {
  margin: 0 auto; padding: 2rem 1.25rem 3rem; max-width: 62rem;
  background: var(--paper); color: var(--ink); font: 1rem/1.55 system-ui, sans-serif;
  overflow-wrap: break-word;
}
h1 { margin: 0; font-size: 2.25rem; line-height: 1.15; letter-spacing: -.02em; }
h2 { margin: 3rem 0 1rem; font-size: 1.35rem; line-height: 1.3; }
h3 { margin: 1.5rem 0 .4rem; font-size: 1rem; }
p { margin: .4rem 0; max-width: 44rem; }
header p { font-size: 1.1rem; color: var(--quiet); }
header strong { color: var(--ink); }
a { color: var(--link); text-decoration-thickness: 1px; text-underline-offset: .15em; }
code { font: .875em/1.5 ui-monospace, Menlo, Consolas, monospace; }
pre {
  margin: .25rem 0; padding: .7rem .9rem; background: var(--box); border-radius: .4rem;
  white-space: pre-wrap; overflow-wrap: anywhere;
}
pre span, p code { white-space: nowrap; }
.first pre { padding: 1rem 1.1rem; border: 1px solid var(--line); font-size: 1.05rem; }
dl { margin: 1rem 0; }
dt { margin-top: .8rem; color: var(--quiet); font-size: .9rem; }
dd { margin: 0; }
.glance dt { color: var(--ink); font-size: 1rem; font-weight: 600; }
small, .legend, footer { color: var(--quiet); font-size: .875rem; }
.scroll {
  position: relative; margin: 1rem 0; overflow-x: auto;
  border: 1px solid var(--line); border-radius: .4rem;
}
table { border-collapse: separate; border-spacing: 0; width: 100%; }
th, td { padding: .5rem .8rem; text-align: left; white-space: nowrap; }
thead th { font-size: .875rem; }
tbody th, td { border-top: 1px solid var(--line); }
tbody th { font-weight: 400; }
tbody th code { display: block; color: var(--quiet); font-size: .75rem; }
th:first-child { position: sticky; left: 0; background: var(--paper); }
td { font-size: .875rem; }
td.ok a { color: var(--good); }
td.pending { color: var(--quiet); font-style: italic; }
td.yanked, td.revoked { color: var(--bad); }
td.none { color: var(--quiet); }
td.none i { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
summary { cursor: pointer; }
.files { padding: .9rem 0; border-top: 1px solid var(--line); }
.files h3 { margin: 0; }
.files h3 b { font-weight: 400; color: var(--quiet); }
.files p { margin: .1rem 0; max-width: none; overflow-wrap: anywhere; }
.files p code { white-space: normal; }
.files a { margin-right: .6rem; }
.files:target { background: var(--box); }
footer { margin-top: 3rem; padding-top: 1rem; border-top: 1px solid var(--line); }
@media (min-width: 40rem) {
  dl { display: grid; grid-template-columns: 11rem 1fr; gap: .6rem 1.25rem; align-items: baseline; }
  dt { margin: 0; }
}
@media (max-width: 40rem) {
  th:first-child { min-width: 9rem; max-width: 10rem; white-space: normal; }
}
"""
