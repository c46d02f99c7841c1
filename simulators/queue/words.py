"""Figures as people read them."""

from __future__ import annotations

ROUNDING = 1e-12


def with_error(estimate: float, high: float, sign: str = "") -> str:
    """As people read an interval, which is as wide on both sides."""
    width = high - estimate
    if width < ROUNDING * abs(estimate):
        width = 0.0
    return f"{estimate:{sign},.4g} ± {width:,.2g}"
