"""Charts of the queue lab: a frame in, a chart out. They carry their data, and need no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import polars as pl

from fleet.errors import Misuse

WIDTH, HEIGHT, ROW = 560, 320, 26


def findings_chart(frame: pl.DataFrame) -> Any:
    """Columns `metric`, `estimate`, `low`, `high`, `theory`: a row for each metric, on a scale of its own,
    with a red tick where theory has it."""
    base = alt.Chart().encode(y=alt.value(ROW / 2))
    layers = alt.layer(
        base.mark_rule(strokeWidth=2).encode(x=_x("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=50).encode(
            x="estimate:Q", tooltip=["metric:N", "estimate:Q", "low:Q", "high:Q", "theory:Q"]
        ),
        base.mark_tick(color="#c62828", thickness=2, size=18).encode(x="theory:Q"),
    )
    return _by_metric(layers, frame, ROW)


def sweep_chart(frame: pl.DataFrame, axes: Sequence[str], metric: str = "W") -> Any:
    """A metric over the first of the axes, with its interval as a band and theory as a dashed line; a colour
    for each value of the second axis, a panel for each combination of the others. `frame` is of
    `experiment.frame_of`. Raises Misuse for a metric that is not there."""
    table = frame.filter(pl.col("metric") == metric)
    if table.is_empty():
        there = ", ".join(frame["metric"].unique(maintain_order=True))
        raise Misuse(f"there is no metric {metric} in this sweep; there is {there}")
    # By plain names: to a chart the dots of a path are steps into an object.
    table = _renamed(table, axes)
    field = f"x:{_type_of(table['x'])}"
    whole = alt.Axis(tickMinStep=1) if table["x"].dtype.is_integer() else alt.Axis()
    x = alt.X(field, title=axes[0], scale=alt.Scale(zero=False), sort=None, axis=whole)
    base = alt.Chart().encode(x=x)
    if len(axes) > 1:
        base = base.encode(color=alt.Color("colour:N", title=axes[1], sort=None))
    title = _title(metric)
    layers = alt.layer(
        base.mark_area(opacity=0.2).encode(y=alt.Y("low:Q", title=title), y2="high:Q"),
        base.mark_line(point=True).encode(
            y=alt.Y("estimate:Q", title=title), tooltip=[field, "estimate:Q", "low:Q", "high:Q", "theory:Q"]
        ),
        base.mark_line(strokeDash=[5, 4]).encode(y=alt.Y("theory:Q", title=title)),
        data=_data(table),
    ).properties(width=WIDTH, height=HEIGHT)
    return layers if len(axes) < 3 else layers.facet(facet=alt.Facet("panel:N", title=None), columns=2)


def differences_chart(frame: pl.DataFrame) -> Any:
    """The paired differences from the first policy, with their intervals: a row for each metric, on a scale
    of its own. `frame` is of `comparison.frame_of`."""
    table = frame.filter(pl.col("difference").is_not_null())
    policies = table["policy"].unique(maintain_order=True).to_list()
    y = alt.Y("policy:N", title=None, sort=policies, axis=None)
    base = alt.Chart().encode(y=y, color=alt.Color("policy:N", title="beside the first", sort=policies))
    layers = alt.layer(
        alt.Chart().mark_rule(strokeDash=[3, 3], color="#888").encode(x=alt.datum(0)),
        base.mark_rule(strokeWidth=2).encode(x=_x("difference_low:Q"), x2="difference_high:Q"),
        base.mark_point(filled=True, size=50).encode(
            x="difference:Q",
            tooltip=["metric:N", "policy:N", "difference:Q", "difference_low:Q", "difference_high:Q"],
        ),
    )
    return _by_metric(layers, table, ROW * max(1, len(policies)))


def _renamed(table: pl.DataFrame, axes: Sequence[str]) -> pl.DataFrame:
    figures = table.select("estimate", "low", "high", "theory", pl.col(axes[0]).alias("x"))
    if len(axes) > 1:
        figures = figures.with_columns(table[axes[1]].cast(pl.String).alias("colour"))
    if len(axes) > 2:
        panel = [pl.format(f"{name}={{}}", pl.col(name)) for name in axes[2:]]
        figures = figures.with_columns(
            table.select(pl.concat_str(panel, separator=", ").alias("panel"))["panel"]
        )
    return figures


def _type_of(column: pl.Series) -> str:
    return "Q" if column.dtype.is_numeric() else "N"


def _x(field: str) -> alt.X:
    return alt.X(field, title=None, scale=alt.Scale(zero=False), axis=alt.Axis(grid=False, tickCount=5))


def _title(metric: str) -> str:
    return f"{metric}, seconds" if metric.startswith("W") else metric


def _by_metric(layers: Any, table: pl.DataFrame, height: int) -> Any:
    metrics = table["metric"].unique(maintain_order=True).to_list()
    row = alt.Row("metric:N", sort=metrics, title=None, header=alt.Header(labelAngle=0, labelAlign="left"))
    return (
        layers.properties(width=WIDTH, height=height)
        .facet(row=row, data=_data(table), spacing=4)
        .resolve_scale(x="independent")
    )


def _data(table: pl.DataFrame) -> Any:
    return alt.InlineData(values=table.to_dicts())
