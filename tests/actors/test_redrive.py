"""Very many dead letters at once."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores.kept import Kept, tables_of

from actors.local import LocalFleet
from fleet.dead_letters import DeadLetterFilter, Redrive
from fleet.job import JobEvent
from fleet.limits import Limits
from fleet.messages import Answer, Claim, JobSpec, Report, Submit


def fail_for_good(kept: Kept, names: list[str]) -> None:
    """All in one commit."""
    kept.core.submit(
        Submit(names, [JobSpec(name="weld", payload={"x": "y" * 200})] * len(names)), *kept.clock
    )
    claim = Claim("door", "r", names[0], len(names), 0, [], "e", len(names))
    answer = kept.core.claim(claim, *kept.clock)
    assert isinstance(answer, Answer)
    for grant in answer.grants:
        report = Report(JobEvent.FAIL, grant.job.job_id, "r", grant.token, error="jam", retryable=False)
        kept.core.report(report, *kept.clock)
    changes = kept.write()
    kept.core.trim(changes[-1].number + 1)
    kept.written.clear()


@pytest.mark.long
@pytest.mark.timeout(600)
async def test_a_hundred_thousand_dead_letters_are_redriven_in_bounded_calls(tmp_path: Path) -> None:
    store, limits = f"sqlite:{tmp_path}", Limits()
    kept = Kept(lambda: tables_of(store, limits, "fleetcast"), limits)
    for number in range(100):
        fail_for_good(kept, [f"j{number}-{n}" for n in range(1_000)])
    kept.close()
    fleet = LocalFleet(limits, "", store)
    place, redriven, remaining = 0, [], []
    while True:
        done = await fleet.redrive(Redrive(DeadLetterFilter(error="jam"), place))
        redriven.append(done.redriven)
        remaining.append(done.remaining)
        place = done.place
        if not place:
            break
    assert redriven == [1_000] * 100
    assert remaining == [100_000 - 1_000 * n for n in range(1, 101)]
    assert (await fleet.metrics()).jobs.pending == 100_000
    assert await fleet.dead_letters(DeadLetterFilter(), 0, 10) == ([], 0)
    await fleet.close()
