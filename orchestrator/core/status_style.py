"""The style of the status pages: the download page's, and what a release in progress needs."""

from __future__ import annotations

from typing import Final

from orchestrator.core.page_style import STYLE as PAGE_STYLE

STYLE: Final = (
    PAGE_STYLE
    + """\
:root { --run: #0b57a4; --prepare: #8a8f96; --check: #7a4fb0; --publish: #17642c;
  --critical: #b4500b; }
@media (prefers-color-scheme: dark) {
  :root { --run: #5a9be6; --prepare: #7d838b; --check: #b48be8; --publish: #83cf97;
    --critical: #f0a35e; }
}
:focus-visible { outline: 3px solid var(--link); outline-offset: 2px; }
main:focus { outline: none; }
.skip { position: absolute; left: -100rem; }
.skip:focus { left: 1rem; top: .5rem; background: var(--paper); padding: .5rem; }
.hidden { position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%); }
[hidden] { display: none !important; }
.quiet { color: var(--quiet); font-weight: 400; }
nav { margin-bottom: 1.5rem; }
nav a { margin-right: 1rem; }
h1 b { font-weight: 400; color: var(--quiet); }
h3 { font-size: 1.15rem; }
.badge { white-space: nowrap; font-weight: 600; }
.badge.running { color: var(--run); }
.badge.done, .badge.built, .badge.fresh { color: var(--good); }
.badge.failed, .badge.late { color: var(--bad); }
.badge.queued, .badge.waiting, .badge.skipped, .badge.cancelled, .badge.behind {
  color: var(--quiet);
}
.nodes { list-style: none; margin: 1rem 0; padding: 0; }
.node {
  padding: .7rem .9rem; border: 1px solid var(--line); border-left-width: .35rem;
  border-radius: .4rem; margin: 0 0 .6rem;
}
.node.running { border-left-color: var(--run); }
.node.built { border-left-color: var(--good); }
.node.failed { border-left-color: var(--bad); }
.node p { margin: .15rem 0; max-width: none; }
.node .note { overflow-wrap: anywhere; }
.node .clock { color: var(--quiet); font-size: .875rem; font-variant-numeric: tabular-nums; }
.node progress { width: 100%; height: .5rem; accent-color: var(--run); }
.node summary { overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
.node pre { max-height: 20rem; overflow: auto; font-size: .8rem; }
pre { font: .8rem/1.45 ui-monospace, Menlo, Consolas, monospace; }
pre:focus-visible { outline-offset: -3px; }
@media (min-width: 40rem) {
  .node { display: grid; grid-template-columns: 15rem 1fr auto; gap: 0 1rem; }
  .node progress, .node details { grid-column: 1 / -1; }
  .node .clock { text-align: right; }
}
.left:not(:empty)::before, .stage::before { content: "· "; }
td { vertical-align: top; }
td.words { white-space: normal; min-width: 16rem; overflow-wrap: anywhere; }
th code { white-space: nowrap; }
@media (max-width: 40rem) {
  .stack, .stack tbody { display: block; }
  .stack thead {
    position: absolute; width: 1px; height: 1px; overflow: hidden; clip-path: inset(50%);
  }
  .stack tr { display: block; padding: .6rem .8rem; border-top: 1px solid var(--line); }
  .stack tr:first-child { border-top: 0; }
  .stack th, .stack td { display: block; padding: .05rem 0; border: 0; }
  .stack tbody th:first-child { position: static; min-width: 0; max-width: none; font-weight: 600; }
  .stack td.words { min-width: 0; }
  .stack td:empty { display: none; }
  .stack td::before { content: attr(data-label) ": "; color: var(--quiet); }
}
figure { margin: 1rem 0; }
.timeline { display: block; font: 13px system-ui, sans-serif; }
.timeline text { fill: var(--ink); }
.timeline .tick { fill: var(--quiet); font-size: 12px; }
.timeline .name { font-weight: 600; }
.timeline .end { font-size: 12px; }
.timeline .end.built { fill: var(--good); }
.timeline .end.failed { fill: var(--bad); }
.timeline .grid { stroke: var(--line); fill: none; }
.bar { stroke: var(--paper); stroke-width: .75; }
.bar.wait { fill: var(--box); stroke: var(--quiet); stroke-dasharray: 3 2; }
.bar.prepare { fill: var(--prepare); }
.bar.build { fill: var(--run); }
.bar.check { fill: var(--check); }
.bar.publish { fill: var(--publish); }
.grain { fill: var(--paper); }
.stripe { stroke: var(--paper); stroke-width: 1.4; fill: none; }
.critical { stroke: var(--critical); stroke-width: 4; fill: none; }
.swatches span { display: inline-block; margin-right: 1.2rem; }
.swatch { vertical-align: -2px; }
.message { white-space: pre-wrap; overflow-wrap: anywhere; }
.failure { border-left: .35rem solid var(--bad); padding: .1rem 0 .1rem .9rem; margin: 1rem 0; }
.failure h3 { margin: .2rem 0; }
.facts dt { font-size: .9rem; }
form { margin: 1rem 0; }
form p { margin: .5rem 0; }
label { display: block; margin: .4rem 0; }
input[type="password"] { width: 100%; max-width: 24rem; }
input, button {
  font: inherit; color: inherit; background: var(--box); border: 1px solid var(--quiet);
  border-radius: .3rem; padding: .45rem .7rem;
}
button { cursor: pointer; margin: .2rem .4rem .2rem 0; }
button.danger { color: var(--bad); border-color: var(--bad); }
"""
)
