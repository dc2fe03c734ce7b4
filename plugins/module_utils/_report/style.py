# Copyright: (c) 2026, confidential.gpu contributors
# SPDX-License-Identifier: Apache-2.0
"""How the page looks: light and dark, on paper, in windows of any width. No meaning stands in a colour alone."""

from __future__ import annotations

CSS = """\
:root { color-scheme: light dark; --back: #ffffff; --raised: #f4f6f8; --text: #1b1f24; --faint: #57606a;
  --line: #d0d7de; --link: #0550ae; --good: #0f6b2f; --bad: #a40e26; --warn: #7a4b00; --plain: #57606a; }
@media (prefers-color-scheme: dark) { :root { --back: #0f1419; --raised: #1a2129; --text: #e6edf3; --faint: #9aa7b4;
  --line: #364049; --link: #79b8ff; --good: #56d364; --bad: #ff8f86; --warn: #e3b341; --plain: #9aa7b4; } }
* { box-sizing: border-box; }
[hidden] { display: none !important; }
body { margin: 0; background: var(--back); color: var(--text); font: 15px/1.45 system-ui, sans-serif; }
header, main, footer { max-width: 1600px; margin: 0 auto; padding: 0 1.25rem; }
header { padding-top: 1.5rem; }
h1 { font-size: 1.6rem; margin: 0 0 .25rem; }
h2 { font-size: 1.2rem; margin: 2.25rem 0 .5rem; }
p { margin: .25rem 0; max-width: 75ch; overflow-wrap: anywhere; }
.faint { color: var(--faint); }
a, button.sort { color: inherit; }
nav.contents { margin: .75rem 0 0; display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; }
nav.contents a { color: var(--link); }
.alarm { border-left: 4px solid var(--bad); background: var(--raised); padding: .5rem .75rem; margin: .75rem 0; }
dl.counts { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .6rem;
  margin: 1rem 0 0; }
dl.counts div { background: var(--raised); border: 1px solid var(--line); border-radius: 6px; padding: .5rem .75rem;
  display: flex; flex-direction: column-reverse; }
dl.counts dt { color: var(--faint); font-size: .85rem; }
dl.counts dd { margin: 0; font-size: 1.5rem; font-weight: 600; font-variant-numeric: tabular-nums; }
.controls { display: flex; flex-wrap: wrap; gap: .5rem 1rem; align-items: end; margin: .5rem 0; }
.controls label { display: flex; flex-direction: column; font-size: .85rem; color: var(--faint); gap: .15rem; }
input, select, button { font: inherit; color: inherit; background: var(--back); border: 1px solid var(--line);
  border-radius: 6px; padding: .3rem .55rem; }
input[type=search] { width: min(26rem, 80vw); }
button { cursor: pointer; }
button:disabled { color: var(--faint); cursor: default; opacity: .6; }
:focus-visible { outline: 2px solid var(--link); outline-offset: 1px; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .84rem; }
caption { text-align: left; color: var(--faint); padding: .5rem .6rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; border-top: 1px solid var(--line); }
thead th { background: var(--raised); vertical-align: bottom; }
tbody th { font-weight: 600; }
tbody tr:nth-child(even) { background: color-mix(in srgb, var(--raised) 55%, var(--back)); }
td, tbody th { overflow-wrap: break-word; max-width: 22rem; }
td.code, th.code { font-family: ui-monospace, monospace; white-space: nowrap; }
td.when time { white-space: nowrap; font-variant-numeric: tabular-nums; }
td.hash { font: .75rem ui-monospace, monospace; min-width: 13rem; max-width: 17rem; overflow-wrap: anywhere; }
td.long { min-width: 13rem; max-width: 34rem; overflow-wrap: anywhere; }
button.sort { all: unset; cursor: pointer; font-weight: 600; display: inline-flex; gap: .3rem; align-items: baseline; }
button.sort:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
button.sort .arrow { width: .8em; color: var(--faint); }
.verdict { white-space: nowrap; font-weight: 600; }
.verdict.good { color: var(--good); } .verdict.bad { color: var(--bad); }
.verdict.warn { color: var(--warn); } .verdict.plain { color: var(--plain); }
.pages { display: flex; flex-wrap: wrap; gap: .5rem; align-items: center; margin: .5rem 0; }
ul.plain { margin: 0; padding-left: 1.1rem; }
footer { color: var(--faint); padding-bottom: 2rem; font-size: .85rem; }
code { font-family: ui-monospace, monospace; font-size: .9em; }
pre { background: var(--raised); border: 1px solid var(--line); border-radius: 6px; padding: .6rem .8rem;
  overflow-x: auto; }
@media print {
  :root { color-scheme: light; --back: #fff; --raised: #f4f4f4; --text: #000; --faint: #333; --line: #999;
    --good: #000; --bad: #000; --warn: #000; --plain: #000; }
  @page { size: A4 landscape; margin: 12mm; }
  body { font-size: 9pt; }
  header, main, footer { max-width: none; padding: 0; }
  .controls, .pages, nav.contents, button.sort .arrow { display: none; }
  .scroll { overflow: visible; border: 0; }
  table { font-size: 7.5pt; }
  th, td { padding: 1.5pt 3pt; }
  td, tbody th { max-width: none; overflow-wrap: anywhere; }
  td.long { min-width: 0; max-width: none; }
  td.code, th.code, td.when time, .verdict { white-space: normal; }
  thead { display: table-header-group; }
  tr { break-inside: avoid; }
  h2 { break-after: avoid; }
}
"""
