"""A run as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any

import altair as alt
import jinja2
import msgspec
import polars as pl
import vl_convert
from markupsafe import Markup

WIDTH, HEIGHT = 760, 220
_SNIPPET = "window.vegaEmbed = vegaEmbed;"
_environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)


class Table(msgspec.Struct, frozen=True):
    """`bad` are the rows, by number, that are to be seen first. The first so many columns, `words`, are no
    figures."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    bad: frozenset[int] = frozenset()
    words: int = 1


class Plot(msgspec.Struct, frozen=True):
    title: str
    about: str
    chart: Any  # of Altair


class Page(msgspec.Struct, frozen=True):
    """`verdict` is a sentence; `good` tells how it, and the notes below it, are to look. `made`, and the
    texts of `sources`, such as a file, are how to make the same again."""

    title: str
    about: str
    verdict: str
    good: bool
    notes: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[Plot]
    made: Table | None = None
    sources: Sequence[str] = ()


_TEMPLATE = _environment.from_string("""\
{% macro shown(table) %}<h2>{{ table.title }}</h2>
<div class="wide"><table><thead><tr>
{%- for cell in table.head %}<th{{ ' class=word' if loop.index0 < table.words }}>{{ cell }}</th>{% endfor -%}
</tr></thead><tbody>
{% for row in table.rows %}<tr{{ ' class=bad' if loop.index0 in table.bad }}>
{%- for cell in row %}<td{{ ' class=word' if loop.index0 < table.words }}>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table></div>
{% endmacro %}
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy"
 content="default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
  :root { color-scheme: light; --ink: #1b2430; --pale: #5a6675; --rule: #e3e8ee; --paper: #fff;
    --bad: #8d1515; --bad-paper: #fde8e8; --good: #14632f; --good-paper: #e4f5e9; --code: #f4f6f8; }
  @media screen and (prefers-color-scheme: dark) {
    :root { color-scheme: dark; --ink: #dfe5ec; --pale: #9aa7b5; --rule: #2c3642; --paper: #12171d;
      --bad: #ffb3ad; --bad-paper: #45191b; --good: #a6e3bb; --good-paper: #143523; --code: #1b222b; }
  }
  body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: var(--paper); }
  body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; overflow-wrap: anywhere; }
  h1 { font-size: 1.6rem; line-height: 1.2; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
  .about { color: var(--pale); margin: .2rem 0 1rem; }
  .verdict { padding: .7rem 1rem; border-radius: 6px; font-weight: 600; margin: 0 0 .6rem; }
  .verdict, .note { background: var(--bad-paper); color: var(--bad); }
  .verdict.good, .note.good { background: var(--good-paper); color: var(--good); }
  .note { padding: .4rem 1rem; border-radius: 6px; margin: .4rem 0; }
  .wide { overflow-x: auto; }
  table { border-collapse: collapse; width: 100%; overflow-wrap: normal; }
  td, th { padding: .3rem .6rem; border-bottom: 1px solid var(--rule); text-align: right; }
  td { font-variant-numeric: tabular-nums; white-space: nowrap; }
  th { color: var(--pale); font-weight: 600; } .word { text-align: left; white-space: normal; }
  tr.bad td { color: var(--bad); font-weight: 600; }
  pre { background: var(--code); padding: .8rem 1rem; border-radius: 6px; white-space: pre-wrap; }
  .plot { width: 100%; } .plot svg { max-width: 100%; }
  .vega-embed { color: var(--ink); }
  @media (max-width: 40rem) { body { margin: 1rem auto; } td, th { padding: .3rem .4rem; font-size: 14px; } }
  @media print {
    body { margin: 0; max-width: none; font-size: 11px; } .wide { overflow: visible; }
    h2 { break-after: avoid; } tr, .plot, .figure { break-inside: avoid; } .plot svg { height: auto; }
    .verdict, .note, pre { border: 1px solid var(--rule); }
  }
</style>
</head>
<body>
<h1>{{ page.title }}</h1>
<p class="about">{{ page.about }}</p>
<p class="verdict{{ ' good' if page.good }}">{{ page.verdict }}</p>
{% for note in page.notes %}<p class="note{{ ' good' if page.good }}">{{ note }}</p>
{% endfor %}
{% for table in page.tables %}{{ shown(table) }}{% endfor %}
{% for plot in page.plots %}<div class="figure"><h2>{{ plot.title }}</h2>
<p class="about">{{ plot.about }}</p>
<div class="plot" id="plot-{{ loop.index0 }}"><noscript>Charts need JavaScript.</noscript></div></div>
{% endfor %}
{% if page.made %}{{ shown(page.made) }}{% endif %}
{% for source in page.sources %}<pre>{{ source }}</pre>
{% endfor %}
<script type="module">{{ library }}</script>
<script type="module">
const specs = {{ specs }};
// The ink of the page, so that charts follow it from light to dark and onto paper.
const ink = {labelColor: "currentColor", titleColor: "currentColor"};
const line = {domainColor: "currentColor", tickColor: "currentColor", gridColor: "currentColor"};
const config = {
  background: null, view: {stroke: "currentColor", strokeOpacity: 0.15}, legend: ink, header: ink,
  axis: {...ink, ...line, domainOpacity: 0.4, tickOpacity: 0.4, gridOpacity: 0.12},
};
// A chart is as wide as there is room for; of one with many panels, that is the width of a panel.
function fitted(spec, room) {
  const copy = structuredClone(spec);
  if (!copy.facet) return {...copy, width: room, autosize: {type: "fit-x", contains: "padding"}};
  const columns = room < 640 ? 1 : copy.columns ?? 1;
  if (copy.columns) copy.columns = columns;
  copy.spec.width = Math.max(120, room / columns - 150);
  return copy;
}
const theme = matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light";
const options = {actions: false, renderer: "svg", config, tooltip: {theme}};
let drawn = 0;
function draw() {
  const room = document.body.clientWidth - 32;
  if (room === drawn) return;
  drawn = room;
  specs.forEach((spec, n) => vegaEmbed("#plot-" + n, fitted(spec, room), options));
}
draw();
addEventListener("resize", draw);
</script>
</body>
</html>
""")


def html(page: Page) -> str:
    # JSON may have any of its signs written as numbers, so that no text in it can end the script.
    specs = json.dumps([plot.chart.to_dict() for plot in page.plots]).replace("<", "\\u003c")
    return _TEMPLATE.render(page=page, library=_script(_library()), specs=Markup(specs)).lstrip()


@functools.cache
def _library() -> str:
    """Of what draws the charts; it takes a second and a half to put together."""
    return vl_convert.javascript_bundle(_SNIPPET)


def _script(text: str) -> Markup:
    """Into a script element, which ends at the first end tag, even within a string."""
    return Markup(re.sub("</(script)", r"<\\/\1", text, flags=re.IGNORECASE))


# -- charts


def lines(table: pl.DataFrame, over: str, names: Iterable[str], unit: str, log: bool = False) -> Any:
    """A line for each of the columns `names`, over the column `over`."""
    names = list(names)
    scale = alt.Scale(type="symlog") if log else alt.Scale(zero=True)
    return (
        _chart(table.select(over, *names).unpivot(index=over, variable_name="what", value_name="value"))
        .mark_line(strokeWidth=1.6)
        .encode(
            x=alt.X(f"{over}:Q", title="seconds from the beginning", axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title=unit, scale=scale),
            color=alt.Color("what:N", title=None, sort=names, legend=alt.Legend(orient="top")),
            tooltip=["what:N", f"{over}:Q", "value:Q"],
        )
    )


def areas(table: pl.DataFrame, over: str, names: Iterable[str], unit: str) -> Any:
    """The columns on top of each other."""
    return (
        _chart(table.select(over, *names).unpivot(index=over, variable_name="what", value_name="value"))
        .mark_area(interpolate="step-after", opacity=0.8)
        .encode(
            x=alt.X(f"{over}:Q", title="seconds from the beginning", axis=alt.Axis(grid=False)),
            y=alt.Y("value:Q", title=unit, stack="zero"),
            color=alt.Color("what:N", title=None, legend=alt.Legend(orient="top")),
            tooltip=["what:N", f"{over}:Q", "value:Q"],
        )
    )


def percentiles(table: pl.DataFrame) -> Any:
    """Columns `what`, `nines` (the number of nines of a percentile) and `value` in milliseconds."""
    axis = alt.Axis(
        values=[0, 1, 2, 3, 4, 5],
        labelExpr="['0 %', '90 %', '99 %', '99.9 %', '99.99 %', '99.999 %'][datum.value]",
    )
    return (
        _chart(table)
        .mark_line(interpolate="step-after", strokeWidth=1.6)
        .encode(
            x=alt.X("nines:Q", title="of all events", axis=axis),
            y=alt.Y("value:Q", title="ms", scale=alt.Scale(type="log", nice=False)),
            color=alt.Color("what:N", title=None, legend=alt.Legend(orient="top")),
            tooltip=["what:N", "value:Q"],
        )
    )


def _chart(table: pl.DataFrame) -> Any:
    return alt.Chart(alt.InlineData(values=table.to_dicts())).properties(width=WIDTH, height=HEIGHT)
