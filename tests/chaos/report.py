"""What a run did, and what came of it, for people."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from chaos.verdict import Outcome

SHOWN = 5


def show(outcome: Outcome, out: Console) -> None:
    options = outcome.options
    out.print(
        f"\nchaos: seed {options.seed}, {options.seconds:g} s, {options.robots} robots, "
        f"an actor every {options.every_s:g} s, store {'postgresql' if options.store else 'sqlite'}"
    )
    out.print(_done(outcome))
    out.print(f"robots: {_counts(outcome.robot_faults)}; {outcome.stale_refused} stale reports refused")
    out.print(_operations(outcome))
    out.print(f"jobs: {_counts(outcome.jobs)}")
    out.print(_promises(outcome))
    out.print(_growth(outcome))
    for violation in outcome.violations[:SHOWN]:
        out.print(str(violation), markup=False)
    if outcome.left_behind:
        out.print(f"left behind and killed: {outcome.left_behind}", markup=False)
    _verdict(outcome, out)


def _counts(of: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(of.items())) or "none"


def _done(outcome: Outcome) -> Table:
    table = Table("actor", "what was done", "at", "works again after", title="actors")
    for done in sorted(outcome.done, key=lambda each: each.at_ns):
        fault, took_s = done.fault, done.recovery_s
        what = "SIGKILL" if fault.act == "kill" else f"SIGSTOP for {fault.for_s:.1f} s"
        table.add_row(
            fault.actor, what, f"{fault.at_s:g} s", "never" if took_s is None else f"{took_s:.1f} s"
        )
    return table


def _operations(outcome: Outcome) -> Table:
    table = Table("operation", "ok", "fail", "unknown", title="what clients did")
    for name in sorted({name for name, _ in outcome.ops}):
        table.add_row(name, *(str(outcome.ops.get((name, end), 0)) for end in ("ok", "fail", "unknown")))
    return table


def _promises(outcome: Outcome) -> Table:
    table = Table("promise", "measured", "kept", title="promises")
    for promise in outcome.promises:
        broken = [*promise.broken[:SHOWN], "..."] if len(promise.broken) > SHOWN else promise.broken
        table.add_row(promise.text, promise.measured, "yes" if promise.kept else "NO: " + "\n".join(broken))
    return table


def _growth(outcome: Outcome) -> Table:
    table = Table("process", "RSS", "MB/min", "files", "/min", "threads", "/min", title="growth")
    for name, slope in sorted(outcome.slopes.items()):
        if slope.end is not None:
            row = (
                f"{slope.end.rss_mb:.0f} MB",
                f"{slope.rss_mb:+.2f}",
                f"{slope.end.fds}",
                f"{slope.fds:+.2f}",
            )
            table.add_row(name, *row, f"{slope.end.threads}", f"{slope.threads:+.2f}")
    return table


def _verdict(outcome: Outcome, out: Console) -> None:
    rules: dict[str, int] = {}
    for violation in outcome.violations:
        rules[violation.rule] = rules.get(violation.rule, 0) + 1
    out.print(f"checkers: {_counts(rules) if rules else 'clean'}")
    out.print("chaos: all promises kept" if outcome.good else "chaos: BROKEN")
