"""Writes state-machines.md from the one table in `fleet/job.py`: python docs/state_machines.py"""

from __future__ import annotations

from pathlib import Path

from fleet.job import TRANSITIONS, Rule, always

PAGE = Path(__file__).with_name("state-machines.md")
WHEN = {
    "always": "",
    "late": "its `timeout_s` has passed",
    "stopping": "its cancel was requested",
    "stopping_retryably": "its cancel was requested and the failure is retryable",
    "again": "attempts are left and the failure is retryable",
}
TOP = """# The life of a job

Made from `fleet/job.py` by `python docs/state_machines.py`. Where several rules share a state and an event,
the first whose condition holds applies. What no rule admits is refused with 409, naming state and event.

"""


def diagram() -> str:
    moves: dict[tuple[str, str], list[str]] = {}
    for rule in TRANSITIONS:
        source, target = rule.source or "[*]", rule.target
        if source != target and rule.event not in moves.setdefault((source, target), []):
            moves[source, target].append(rule.event)
    lines = [f"    {source} --> {target}: {', '.join(events)}" for (source, target), events in moves.items()]
    return "```mermaid\nstateDiagram-v2\n" + "\n".join(lines) + "\n```\n"


def row(rule: Rule) -> str:
    when = "" if rule.guard is always else WHEN[rule.guard.__name__]
    return f"| {rule.source or '-'} | {rule.event} | {when} | {rule.target} |"


def page() -> str:
    table = ["| from | event | when | to |", "|---|---|---|---|", *map(row, TRANSITIONS)]
    return TOP + diagram() + "\n" + "\n".join(table) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
