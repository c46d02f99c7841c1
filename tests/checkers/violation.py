"""A promise that a run broke, told so that a person can follow it."""

from __future__ import annotations

import msgspec

from checkers.history import Op


class Violation(msgspec.Struct, frozen=True):
    """`records` show it, in the order of their calls."""

    rule: str
    job_id: str
    detail: str
    records: list[Op] = []

    def __str__(self) -> str:
        return "\n".join([f"{self.rule}: {self.job_id}: {self.detail}", *map(line_of, self.records)])


def line_of(op: Op) -> str:
    """Times are seconds of the run's clock."""
    said = ", ".join(f"{name}={getattr(op.call, name)}" for name in op.call.__struct_fields__)
    heard = {"ok": op.answer, "fail": op.code, "unknown": "no answer"}[op.outcome]
    until = "" if op.outcome == "unknown" else f"{op.ended_ns / 1e9:.3f}"
    name = type(op.call).__name__.lower()
    return f"  {op.invoked_ns / 1e9:.3f}..{until:<10} {op.process:<8} {name}({said}) {op.outcome}: {heard}"
