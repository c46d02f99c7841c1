"""The record of a run: typed, cheap, and whole up to the moment its writer died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from checkers.history import (
    NEVER,
    AnyCall,
    AnyTold,
    Beat,
    Cancel,
    Cancelled,
    Claim,
    Created,
    Failed,
    Grant,
    Granted,
    Invoked,
    Ok,
    Op,
    Read,
    Report,
    Retry,
    Shown,
    Submit,
    ToStop,
    Unknown,
    final_of,
    ops_of,
    read,
    recorder_to,
    records_of,
)
from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import JobToken

PAIRS: list[tuple[AnyCall, AnyTold | None]] = [
    (Submit(["a", "b"], "key", 2, 1.5, 3.0), Created(["j1", "j2"])),
    (Retry("j1", "key"), Created(["j3"])),
    (Cancel("j1"), Cancelled(False, JobStatus.COMPLETED)),
    (Read("j1"), Shown(JobStatus.RUNNING, 2)),
    (Claim("r", "q", 2), Granted([Grant("j1", 7, 1, 3)])),
    (Report(JobEvent.FAIL, "j1", "r", 7, False), Shown(JobStatus.FAILED, 1)),
    (Beat("r", [JobToken("j1", 7)]), ToStop(["j1"])),
    (Cancel("j2"), None),
]


class Clock:
    def __init__(self) -> None:
        self.now_ns = 0

    def __call__(self) -> int:
        self.now_ns += 1
        return self.now_ns


def test_what_was_recorded_is_read_again(tmp_path: Path) -> None:
    recorder = recorder_to(tmp_path / "log", Clock())
    for call, answer in PAIRS:
        recorder.ok(recorder.invoke("c", call), answer)
    ops = read([tmp_path / "log"])
    assert [(op.call, op.answer) for op in ops] == PAIRS
    assert [(op.invoked_ns, op.ended_ns) for op in ops] == [(2 * n + 1, 2 * n + 2) for n in range(len(PAIRS))]


def test_a_call_ends_in_one_of_three_ways_and_one_without_an_end_is_unknown(tmp_path: Path) -> None:
    recorder = recorder_to(tmp_path / "log", Clock())
    done, no, lost, _ = [recorder.invoke(f"c{n}", Cancel("j")) for n in range(4)]
    recorder.unknown(lost)
    recorder.fail(no, "terminal")
    recorder.ok(done)
    ops = read([tmp_path / "log"])
    assert [(op.process, op.outcome, op.code) for op in ops] == [
        ("c0", "ok", ""),
        ("c1", "fail", "terminal"),
        ("c2", "unknown", ""),
        ("c3", "unknown", ""),
    ]
    assert [op.ended_ns for op in ops] == [7, 6, NEVER, NEVER]


def test_the_logs_of_several_processes_are_one_history(tmp_path: Path) -> None:
    clock = Clock()
    recorders = [recorder_to(tmp_path / f"log{n}", clock) for n in range(2)]
    for n in range(4):
        recorders[n % 2].ok(recorders[n % 2].invoke(f"c{n}", Cancel(f"j{n}")))
    assert [op.process for op in read(tmp_path.iterdir())] == ["c0", "c1", "c2", "c3"]


@pytest.mark.parametrize("cut", [1, 10, 50])
def test_a_torn_last_line_is_dropped_by_readers_and_by_the_next_recorder(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "log"
    recorder = recorder_to(path, Clock())
    first = recorder.invoke("before", Cancel("j"))
    recorder.ok(first)
    os.truncate(path, path.stat().st_size - cut)
    assert read([path]) == [Op("before", Cancel("j"), 1)]
    after = recorder_to(path, Clock())
    after.ok(after.invoke("after", Cancel("j")))
    assert [(op.process, op.outcome) for op in read([path])] == [("before", "unknown"), ("after", "ok")]


def test_a_line_that_is_not_a_record_is_an_error_where_no_crash_explains_it(tmp_path: Path) -> None:
    path = tmp_path / "log"
    recorder = recorder_to(path, Clock())
    recorder.invoke("c", Cancel("j"))
    path.write_bytes(path.read_bytes()[:-9] + b"\n" + path.read_bytes())
    with pytest.raises(msgspec.DecodeError):
        records_of(path)


def test_an_end_without_a_call_and_a_second_end_are_errors() -> None:
    with pytest.raises(ValueError, match="without a call"):
        ops_of([Unknown(1, "c", 0)])
    with pytest.raises(ValueError, match="second one"):
        ops_of([Invoked(1, "c", 0, Cancel("j")), Ok(2, "c", 0), Failed(3, "c", 0, "terminal")])


WRITER = """
import sys
from pathlib import Path
from checkers.history import Cancel, recorder_to
recorder = recorder_to(Path(sys.argv[1]))
for n in range(3):
    recorder.ok(recorder.invoke("c", Cancel(f"j{n}")))
recorder.invoke("c", Cancel("j3"))
print("written", flush=True)
sys.stdin.read()
"""


def test_a_killed_process_leaves_all_that_it_recorded(tmp_path: Path) -> None:
    tests = Path(__file__).parent.parent
    writer = subprocess.Popen(
        [sys.executable, "-c", WRITER, str(tmp_path / "log")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": f"{tests}:{tests.parent}"},
    )
    assert writer.stdout is not None
    assert writer.stdout.readline() == b"written\n"
    writer.send_signal(signal.SIGKILL)
    writer.communicate()
    ops = read([tmp_path / "log"])
    assert [getattr(op.call, "job_id", "") for op in ops] == ["j0", "j1", "j2", "j3"]
    assert [op.outcome for op in ops] == ["ok", "ok", "ok", "unknown"]


def test_the_job_of_a_submission_is_known_by_its_payload() -> None:
    job = Job(job_id="j", name="n", payload={"submission": "p.1"}, attempt=2, retry_of="i")
    assert final_of(job).submission == "p.1"
    assert final_of(job).retry_of == "i"
    assert final_of(job).changes is None
    assert final_of(Job(job_id="j", name="n")).submission == ""
