"""What is left of a run on disk."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import polars as pl
import pytest
from simulators_made import performance

from fleet.errors import Misuse, Unavailable
from simulators.folders import make_folder
from simulators.load import results
from simulators.load.load_report import load_report
from simulators.load.outcome import Outcome

STARTED = "2026-03-04T05:06:07.890Z"


def test_a_folder_is_named_after_the_run_and_its_time_and_is_never_used_twice(tmp_path: Path) -> None:
    names = [make_folder(tmp_path / "results", "smoke", STARTED).name for _ in range(3)]
    assert names == [f"smoke-20260304T050607Z{more}" for more in ("", "-2", "-3")]


def test_a_place_that_cannot_be_written_to_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Misuse, match="cannot be written to"):
        make_folder(tmp_path / "file", "smoke", STARTED)


def test_everything_is_written_and_can_be_read_again(tmp_path: Path) -> None:
    made = performance()
    results.write(tmp_path, made, load_report)
    assert msgspec.json.decode((tmp_path / "summary.json").read_bytes(), type=Outcome) == made.outcome
    assert pl.read_parquet(tmp_path / "series.parquet").equals(made.frame)
    assert pl.read_parquet(tmp_path / "seconds.parquet").equals(made.seconds)
    assert (tmp_path / "latency.hgrm").read_text().split()[0] == "Value"
    assert "All 1 thresholds were met" in (tmp_path / "report.html").read_text()
    assert not (tmp_path / "PARTIAL").exists()


def test_a_full_disk_leaves_what_there_was_room_for_and_says_so(tmp_path: Path) -> None:
    """A device that is always full stands where two files go."""
    for name in ("seconds.parquet", "report.html"):
        (tmp_path / name).symlink_to("/dev/full")
    with pytest.raises(Unavailable, match=r"not all results .* report.html: No space left on device"):
        results.write(tmp_path, performance(), load_report)
    assert {path.name for path in tmp_path.iterdir()} == {
        "summary.json",
        "latency.hgrm",
        "series.parquet",
        "usage.parquet",
        "PARTIAL",
    }
    seconds, report = (tmp_path / "PARTIAL").read_text().splitlines()
    assert (seconds[:16], seconds.count("o space left"), report) == (
        "seconds.parquet:",
        1,
        "report.html: No space left on device",
    )


def test_a_run_without_events_has_a_report_too() -> None:
    empty = performance(latencies_us=np.zeros(0, dtype=np.int64), seconds=[])
    assert "Load test: made" in load_report(empty)


def test_what_a_scenario_or_server_says_cannot_become_markup() -> None:
    text = load_report(performance(name="</script><script>alert(1)</script>", refused={"<b>bold</b>": 3}))
    assert "<script>alert(1)" not in text
    assert "<b>bold" not in text
