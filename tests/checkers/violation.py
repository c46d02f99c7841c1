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
    """From when to when in seconds, who, what was asked and what was answered, as in the record."""
    until = "" if op.outcome == "unknown" else f"{op.ended_ns / 1e9:.3f}"
    asked = msgspec.json.encode(op.call).decode()
    return f"  {op.invoked_ns / 1e9:.3f}..{until:<9} {op.process} {asked} -> {answer_of(op)}"


def answer_of(op: Op) -> str:
    answers = {"ok": msgspec.json.encode(op.answer).decode(), "fail": f"refused: {op.code}"}
    return answers.get(op.outcome, "no answer")
