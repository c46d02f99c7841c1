"""Charts of the queue lab: a frame in, a chart out. They carry their data, and need no network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt
import numpy as np
import polars as pl

from fleet.errors import Misuse

WIDTH, HEIGHT, ROW = 560, 320, 26
BLUE, GREY, THEORY = "#4c78a8", "#808080", "#d9483b"  # that can be seen on black, too
DASHED = [5, 4]
MOST_BARS = 100  # robots; of more it is shown how many are how busy
BINS = 40
ROOM = 1.1  # above the highest figure, for theory that goes beyond all of them
MOST_TICKS, MOST_LETTERS = 12, 60  # along an axis, side by side
WIDE = 1_000  # times the lowest figure: then it takes powers of ten to see them all
UNITS = [("hours", 3_600.0), ("minutes", 60.0), ("seconds", 1.0)]
CURVES = {"waits": "waiting", "stays": "in the system"}


def findings_chart(frame: pl.DataFrame) -> Any:
    """Columns `metric`, `estimate`, `low`, `high`, `theory`: a row for each metric, on a scale of its own,
    with a red tick where theory has it."""
    base = alt.Chart().encode(y=alt.value(ROW / 2))
    layers = alt.layer(
        base.mark_rule(strokeWidth=2, color=BLUE).encode(x=_x("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=50, color=BLUE).encode(
            x="estimate:Q", tooltip=["metric:N", "estimate:Q", "low:Q", "high:Q", "theory:Q"]
        ),
        base.mark_tick(color=THEORY, thickness=2, size=18).encode(x="theory:Q"),
    )
    return _by_metric(layers, frame, ROW)


def times_chart(curves: pl.DataFrame, least: float = 0.0) -> Any:
    """The share of the jobs that waited, and that were there, longer than so many seconds, on a scale of
    powers of ten, where theory has it dashed. `curves` is of `frames.curves_of`; shares below `least` are
    left out, such as what is less than one job."""
    table = _tails(curves).filter(pl.col("exceeds") >= least)
    dash = alt.StrokeDash(
        "by:N",
        title=None,
        scale=alt.Scale(domain=["measured", "theory"], range=[[1, 0], DASHED]),
        legend=alt.Legend(orient="top", columns=1, symbolStrokeColor=GREY),
    )
    base = alt.Chart().encode(
        x=alt.X("seconds:Q", title="seconds", axis=alt.Axis(grid=False)),
        y=alt.Y(
            "exceeds:Q",
            title="share that takes longer",
            scale=alt.Scale(type="log", nice=False, domainMax=1.0),
            axis=alt.Axis(values=[1, 0.5, 0.1, 0.01, 0.001, 0.0001], format="~%"),
        ),
        color=_colour("what", list(CURVES.values()), columns=1),
        tooltip=["what:N", "by:N", "seconds:Q", alt.Tooltip("exceeds:Q", format="~%")],
    )
    measured = base.transform_filter("datum.by == 'measured'").mark_line(strokeWidth=2)
    theory = (
        base.transform_filter("datum.by == 'theory'")
        .mark_line(strokeWidth=1.6)
        .encode(color=alt.value(THEORY), detail="what:N")
    )
    known = "theory" in table["by"]
    layers = [each.encode(strokeDash=dash) for each in (measured, theory)] if known else [measured]
    return alt.layer(*layers, data=_data(table)).properties(width=WIDTH, height=HEIGHT)


def _tails(curves: pl.DataFrame) -> pl.DataFrame:
    """Columns `what`, `by`, `seconds`, `exceeds`. Those that take no time are one point, the last."""
    return (
        curves.filter(pl.col("curve").is_in(list(CURVES)))
        .rename({"value": "measured"})
        .unpivot(["measured", "theory"], index=["curve", "share"], variable_name="by", value_name="seconds")
        .drop_nulls("seconds")
        .select(
            pl.col("curve").replace(CURVES).alias("what"),
            "by",
            "seconds",
            (1 - pl.col("share")).alias("exceeds"),
        )
        .filter((pl.col("seconds") > 0) | (pl.col("seconds").shift(-1).over("what", "by") > 0))
    )


def line_chart(curves: pl.DataFrame, warm_up_s: float = 0.0, theory: float | None = None) -> Any:
    """Jobs in line over time; what is left out as warm-up is shaded, `theory` of the rest dashed. `curves` is
    of `frames.curves_of`."""
    table = curves.filter(pl.col("curve") == "in_line").select("at_s", pl.col("value").alias("jobs"))
    begins_s, latest_s = float(table["at_s"][0]), float(table["at_s"][-1])
    unit, seconds = next((each for each in UNITS if 2 * each[1] <= latest_s), UNITS[-1])
    table = table.with_columns((pl.col("at_s") / seconds).alias("at"))
    x = alt.X("at:Q", title=f"{unit} from the beginning", axis=alt.Axis(grid=False))
    layers: list[Any] = [
        alt.Chart(_data(table))
        .mark_line(strokeWidth=1.6, interpolate="step-after")
        .encode(x=x, y=alt.Y("jobs:Q", title="jobs in line"), tooltip=["at:Q", "jobs:Q"])
    ]
    if warm_up_s > begins_s:
        layers.insert(0, _shade(begins_s / seconds, warm_up_s / seconds))
    if theory is not None:
        rule = alt.Chart(alt.InlineData(values=[{"theory": theory}]))
        dashed = rule.mark_rule(color=THEORY, strokeDash=DASHED, strokeWidth=1.6)
        layers.append(dashed.encode(y="theory:Q", tooltip=["theory:Q"]))
    return alt.layer(*layers).properties(width=WIDTH, height=HEIGHT * 2 // 3)


def _shade(begins: float, ends: float) -> Any:
    data = alt.InlineData(values=[{"begins": begins, "ends": ends}])
    return alt.Chart(data).mark_rect(opacity=0.2, color=GREY).encode(x="begins:Q", x2="ends:Q")


def robots_chart(robots: pl.DataFrame) -> Any:
    """How busy each robot is; of very many, how many are how busy. `robots` is of `frames.robots_of`."""
    return _bars(robots) if len(robots) <= MOST_BARS else _histogram(robots)


def _bars(robots: pl.DataFrame) -> Any:
    table = robots.with_row_index("number", 1)
    fleets = robots["fleet"].unique(maintain_order=True).to_list()
    chart = alt.Chart(_data(table)).encode(
        x=alt.X("number:O", title="robot", axis=alt.Axis(labelOverlap=True, labelAngle=0, ticks=False)),
        y=alt.Y("utilisation:Q", title="utilisation", scale=alt.Scale(domain=[0, 1])),
        tooltip=["fleet:N", "place:Q", "utilisation:Q", "jobs:Q"],
    )
    if len(fleets) > 1:
        chart = chart.encode(color=_colour("fleet", fleets))
    return chart.mark_bar(clip=True).properties(width=WIDTH, height=HEIGHT * 2 // 3)


def _histogram(robots: pl.DataFrame) -> Any:
    busy = robots["utilisation"].to_numpy()
    # A little room to both sides: robots that are all as busy as each other are one bar, not a hair.
    edges = np.linspace(max(0.0, busy.min() - 0.01), busy.max() + 0.01, BINS + 1)
    counts, edges = np.histogram(busy, edges)
    table = pl.DataFrame({"from": edges[:-1], "to": edges[1:], "robots": counts})
    chart = alt.Chart(_data(table.filter(pl.col("robots") > 0))).encode(
        x=alt.X("from:Q", title="utilisation", scale=alt.Scale(zero=False)),
        x2="to:Q",
        y=alt.Y("robots:Q", title="robots"),
        y2=alt.datum(0),
        tooltip=["from:Q", "to:Q", "robots:Q"],
    )
    return chart.mark_bar().properties(width=WIDTH, height=HEIGHT * 2 // 3)


def sweep_chart(
    frame: pl.DataFrame, axes: Sequence[str], metric: str = "W", between: pl.DataFrame | None = None
) -> Any:
    """A metric over the first of the axes, with its interval as a band and theory as a dashed line; a colour
    for each value of the second axis, a panel for each combination of the others. `frame` is of
    `experiment.frame_of`; `between`, of `sweep_theory`, makes a curve of theory. Raises Misuse for a metric
    that is not there."""
    table = frame.filter(pl.col("metric") == metric)
    if table.is_empty():
        there = ", ".join(frame["metric"].unique(maintain_order=True))
        raise Misuse(f"there is no metric {metric} in this sweep; there is {there}")
    # By plain names: to a chart the dots of a path are steps into an object.
    played = _renamed(table, axes)
    table = _with_theory(played, axes, between, metric)
    x = alt.X(
        f"x:{_type_of(table['x'])}",
        title=axes[0],
        scale=alt.Scale(zero=False),
        sort=None,
        axis=_ticks(played["x"]),
    )
    base = alt.Chart().encode(x=x)
    if len(axes) > 1:
        base = base.encode(color=alt.Color("colour:N", title=axes[1], sort=None))
    layers = _band_and_theory(base, table, _title(metric), len(axes) > 1)
    return layers if len(axes) < 3 else layers.facet(facet=alt.Facet("panel:N", title=None), columns=2)


def _band_and_theory(base: Any, table: pl.DataFrame, title: str, coloured: bool) -> Any:
    def y(field: str) -> alt.Y:
        return alt.Y(field, title=title, scale=scale)

    scale = _scale_of(table)
    measured = base.transform_filter("isValid(datum.estimate)")
    theory = base if coloured else base.encode(color=alt.value(THEORY))
    tooltip = [f"x:{_type_of(table['x'])}", "estimate:Q", "low:Q", "high:Q", "theory:Q"]
    return alt.layer(
        measured.mark_area(opacity=0.2).encode(y=y("low:Q"), y2="high:Q"),
        measured.mark_line(point=True).encode(y=y("estimate:Q"), tooltip=tooltip),
        theory.mark_line(strokeDash=DASHED).encode(y=y("theory:Q")),
        data=_data(table),
    ).properties(width=WIDTH, height=HEIGHT)


def differences_chart(frame: pl.DataFrame) -> Any:
    """The paired differences from the first policy, with their intervals: a row for each metric, on a scale
    of its own. `frame` is of `comparison.frame_of`."""
    table = frame.filter(pl.col("difference").is_not_null())
    policies = table["policy"].unique(maintain_order=True).to_list()
    y = alt.Y("policy:N", title=None, sort=policies, axis=None)
    base = alt.Chart().encode(y=y, color=_colour("policy", policies))
    layers = alt.layer(
        alt.Chart().mark_rule(strokeDash=[3, 3], color=GREY).encode(x=alt.datum(0)),
        base.mark_rule(strokeWidth=2).encode(x=_x("difference_low:Q"), x2="difference_high:Q"),
        base.mark_point(filled=True, size=50).encode(
            x="difference:Q",
            tooltip=["metric:N", "policy:N", "difference:Q", "difference_low:Q", "difference_high:Q"],
        ),
    )
    return _by_metric(layers, table, ROW * max(1, len(policies)))


def _renamed(table: pl.DataFrame, axes: Sequence[str]) -> pl.DataFrame:
    """What is not there, such as a capacity, is a word among words."""
    figures = table.select("estimate", "low", "high", "theory", pl.col(axes[0]).alias("x"))
    if figures["x"].has_nulls():
        figures = figures.with_columns(_written("x"))
    if len(axes) > 1:
        figures = figures.with_columns(table.select(_written(axes[1]).alias("colour"))["colour"])
    if len(axes) > 2:
        panel = [pl.format(f"{name}={{}}", _written(name)) for name in axes[2:]]
        figures = figures.with_columns(
            table.select(pl.concat_str(panel, separator=", ").alias("panel"))["panel"]
        )
    return figures


def _written(name: str) -> pl.Expr:
    return pl.col(name).cast(pl.String).fill_null("null")


def _with_theory(
    table: pl.DataFrame, axes: Sequence[str], between: pl.DataFrame | None, metric: str
) -> pl.DataFrame:
    """More rows, which have theory only. Near a load of 1 that goes beyond all that was measured, and is cut
    off, so that the rest can be seen."""
    if between is None or table["x"].dtype == pl.String:
        return table
    highest = pl.concat([table["high"], table["theory"]]).max()
    wanted = pl.col("metric") == metric, pl.col("theory") <= ROOM * (highest or 0.0)  # type: ignore[operator]
    rows = between.filter(*wanted).with_columns(
        pl.lit(None, pl.Float64).alias(name) for name in ("estimate", "low", "high")
    )
    return pl.concat([table, _renamed(rows, axes)], how="vertical_relaxed")


def _ticks(values: pl.Series) -> alt.Axis:
    """Of few whole numbers each: there is nothing between two robots and three."""
    each = values.unique().sort()
    if each.dtype.is_integer() and len(each) <= MOST_TICKS:
        return alt.Axis(values=each.to_list(), format="d")
    short = not each.dtype.is_numeric() and sum(map(len, map(str, each))) <= MOST_LETTERS
    return alt.Axis(labelAngle=0) if short else alt.Axis()


def _scale_of(table: pl.DataFrame) -> alt.Scale:
    """One queue that grows must not make a flat line of all others."""
    lowest, highest = table["low"].min() or 0.0, table["high"].max() or 0.0
    apart = 0 < WIDE * lowest < highest  # type: ignore[operator]
    return alt.Scale(type="log", nice=False) if apart else alt.Scale()


def _type_of(column: pl.Series) -> str:
    return "Q" if column.dtype.is_numeric() else "N"


def _x(field: str) -> alt.X:
    return alt.X(field, title=None, scale=alt.Scale(zero=False), axis=alt.Axis(grid=False, tickCount=5))


def _colour(field: str, values: Sequence[str], **legend: Any) -> alt.Color:
    return alt.Color(f"{field}:N", title=None, sort=list(values), legend=alt.Legend(orient="top", **legend))


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
