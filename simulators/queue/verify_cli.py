"""`fleetcast queue verify`: the lab beside queues whose figures are known."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from fleet.errors import Misuse

if TYPE_CHECKING:  # what a run needs takes most of a second to import, which other commands need not wait
    from simulators.queue.cases import Checked

HEADINGS = ("case", "queue", "metric", "known", "estimate", "off", "z")
Seed = Annotated[int, typer.Option(min=0, help="Other random numbers.")]
AsMarkdown = Annotated[bool, typer.Option("--markdown", help="Print the page docs/queue-cases.md.")]
INTRODUCTION = """\
# The queue lab beside queues whose figures are known

Made by `fleetcast queue verify --markdown`. Each queue is played twenty times by the compiled engine, from
one seed. `off` is how far the estimate is from what is known, relatively; `z` the same in standard errors of
the estimate. A figure holds if z is below 4.5 and it is within the tolerance of its case.
"""


def add_verify(app: typer.Typer, out: Console) -> None:
    """To the commands of `fleetcast queue`."""

    @app.command()
    def verify(seed: Seed = 1, markdown: AsMarkdown = False) -> None:
        """Play queues whose figures are known, and say how far off the lab is."""
        from simulators.queue import cases

        with Progress(console=out, transient=True, disable=markdown or not out.is_terminal) as progress:
            task = progress.add_task("cases", total=len(cases.CASES))
            found = cases.all_checked(seed, lambda name: progress.update(task, advance=1, description=name))
        if markdown:
            print(page(found), end="")
        else:
            out.print(_table(found))
        wrong = [f"{each.case.name} {each.metric}" for each in found if not each.holds]
        if wrong:
            raise Misuse(f"not as it should be: {', '.join(wrong)}; with another --seed it may be")
        if not markdown:
            out.print(f"fleetcast: all {len(found)} figures of {len(cases.CASES)} queues hold")


def _cells(each: Checked) -> list[str]:
    return [
        each.metric,
        f"{each.expected:.6g}",
        f"{each.found.estimate:.6g}",
        f"{each.off:.1%}",
        f"{each.z:+.1f}",
    ]


def _rows(found: list[Checked]) -> list[list[str]]:
    """What belongs to one case has its name once."""
    rows, last = [], None
    for each in found:
        about = ["", ""] if each.case is last else [each.case.name, each.case.what]
        rows.append(about + _cells(each))
        last = each.case
    return rows


def _table(found: list[Checked]) -> Table:
    table = Table(title="queues whose figures are known", title_justify="left")
    for place, heading in enumerate(HEADINGS):
        table.add_column(heading, justify="left" if place < 3 else "right", no_wrap=place != 1)
    for row in _rows(found):
        table.add_row(*row)
    return table


def page(found: list[Checked]) -> str:
    """In Markdown."""
    sources = {each.case.name: f"| {each.case.name} | {each.case.source} |" for each in found}
    return "\n".join(
        [
            INTRODUCTION,
            f"| {' | '.join(HEADINGS)} |",
            f"|{'---|' * len(HEADINGS)}",
            *(f"| {' | '.join(row)} |" for row in _rows(found)),
            "",
            "| case | source |",
            "|---|---|",
            *sources.values(),
            "",
        ]
    )
