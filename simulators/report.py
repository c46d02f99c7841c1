"""A run as one HTML file that needs nothing else: no network, no other file."""

from __future__ import annotations

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
    """`bad` are the rows, by number, that are to be seen first."""

    title: str
    head: Sequence[str]
    rows: Sequence[Sequence[str]]
    bad: frozenset[int] = frozenset()


class Plot(msgspec.Struct, frozen=True):
    title: str
    about: str
    chart: Any  # of Altair


class Page(msgspec.Struct, frozen=True):
    """`verdict` is a sentence; `good` tells how it is to look."""

    title: str
    about: str
    verdict: str
    good: bool
    notes: Sequence[str]
    tables: Sequence[Table]
    plots: Sequence[Plot]


_TEMPLATE = _environment.from_string("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{{ page.title }}</title>
<style>
  :root { color-scheme: light; }
  body { font: 15px/1.45 system-ui, sans-serif; color: #1b2430; }
  body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; }
  h1 { font-size: 1.6rem; margin: 0; } h2 { font-size: 1.1rem; margin: 2rem 0 .4rem; }
  .about { color: #5a6675; margin: .2rem 0 1rem; }
  .verdict { padding: .7rem 1rem; border-radius: 6px; font-weight: 600; background: #fde8e8; color: #8d1515; }
  .verdict.good { background: #e4f5e9; color: #14632f; }
  table { border-collapse: collapse; width: 100%; }
  td, th { padding: .3rem .6rem; border-bottom: 1px solid #e3e8ee; text-align: left; }
  th { color: #5a6675; font-weight: 600; } td + td, th + th { text-align: right; }
  tr.bad td { color: #8d1515; font-weight: 600; }
  td { font-variant-numeric: tabular-nums; }
</style>
</head>
<body>
<h1>{{ page.title }}</h1>
<p class="about">{{ page.about }}</p>
<p class="verdict{{ ' good' if page.good }}">{{ page.verdict }}</p>
{% for note in page.notes %}<p>{{ note }}</p>
{% endfor %}
{% for table in page.tables %}<h2>{{ table.title }}</h2>
<table><thead><tr>{% for cell in table.head %}<th>{{ cell }}</th>{% endfor %}</tr></thead><tbody>
{% for row in table.rows %}<tr{{ ' class=bad' if loop.index0 in table.bad }}>
{%- for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</tbody></table>
{% endfor %}
{% for plot in page.plots %}<h2>{{ plot.title }}</h2>
<p class="about">{{ plot.about }}</p>
<div id="plot-{{ loop.index0 }}"></div>
{% endfor %}
<script type="module">{{ library }}</script>
<script type="module">
const specs = {{ specs }};
specs.forEach((spec, n) => vegaEmbed("#plot-" + n, spec, {actions: false, renderer: "svg"}));
</script>
</body>
</html>
""")


def html(page: Page) -> str:
    library = vl_convert.javascript_bundle(_SNIPPET)
    specs = json.dumps([plot.chart.to_dict() for plot in page.plots])
    return _TEMPLATE.render(page=page, library=_script(library), specs=_script(specs))


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
