"""What clients did to a fleet and what they were told: the record of a run.

Every client writes down a call before it is sent (`invoke`) and what came of it before acting on it: `ok`
with the answer, `fail` where the server refused (it did not happen), `unknown` where no answer came (it may
have happened, may still happen, or never will). A call without an end is unknown: its client died.

Times are nanoseconds of one monotonic clock that all clients share; on one machine CLOCK_MONOTONIC is such.
"""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from fleet.job import Job, JobEvent, JobStatus
from fleet.messages import JobToken

NEVER = 2**63 - 1  # when an operation of unknown outcome ends

# -- what is asked


class Call(msgspec.Struct, frozen=True, tag_field="do", omit_defaults=True):
    pass


class Submit(Call, frozen=True, tag="submit"):
    """One job for each of `submissions`: ids that the client makes, never again uses, and puts into the
    job's payload as `submission`, so that the job can be told in the final state. `key` is the
    idempotency key; calls that share it are the same command. Seconds as in a job."""

    submissions: list[str]
    key: str = ""
    max_attempts: int = 3
    timeout_s: float | None = None
    pending_timeout_s: float | None = None


class Retry(Call, frozen=True, tag="retry"):
    """A new job like `job_id`, which failed or was cancelled."""

    job_id: str
    key: str = ""


class Cancel(Call, frozen=True, tag="cancel"):
    """Calls that share the key are one request, said again, which gets its first answer."""

    job_id: str
    key: str = ""


class Read(Call, frozen=True, tag="read"):
    job_id: str


class Claim(Call, frozen=True, tag="claim"):
    """Calls of one robot that share the request id are the same claim, said again."""

    robot_id: str
    request_id: str
    limit: int = 1


class Report(Call, frozen=True, tag="report"):
    """Start, progress, complete, fail, release or cancelled."""

    event: JobEvent
    job_id: str
    robot_id: str
    token: int
    retryable: bool = True


class Beat(Call, frozen=True, tag="beat"):
    """The jobs that the robot says it is working on."""

    robot_id: str
    jobs: list[JobToken]


AnyCall = Submit | Retry | Cancel | Read | Claim | Report | Beat

# -- what is answered


class Told(msgspec.Struct, frozen=True, tag_field="told", omit_defaults=True):
    pass


class Created(Told, frozen=True, tag="created"):
    """The jobs of a submit, in its order, or the new job of a retry."""

    job_ids: list[str]


class Cancelled(Told, frozen=True, tag="cancelled"):
    cancelled: bool
    previous_status: JobStatus


class Grant(msgspec.Struct, frozen=True):
    job_id: str
    token: int
    attempt: int
    max_attempts: int


class Granted(Told, frozen=True, tag="granted"):
    grants: list[Grant]


class Shown(Told, frozen=True, tag="shown"):
    """The job as a report or a read was answered with it."""

    status: JobStatus
    attempt: int


class ToStop(Told, frozen=True, tag="to_stop"):
    """Of the jobs that a heartbeat named, those that the robot must stop."""

    job_ids: list[str]


AnyTold = Created | Cancelled | Granted | Shown | ToStop

# -- the record


class Record(msgspec.Struct, frozen=True, tag_field="is", omit_defaults=True):
    at_ns: int
    process: str
    number: int  # the same for a call and its end


class Invoked(Record, frozen=True, tag="invoke"):
    call: AnyCall


class Ok(Record, frozen=True, tag="ok"):
    """`answer` None: it happened, and nobody looked at the answer."""

    answer: AnyTold | None = None


class Failed(Record, frozen=True, tag="fail"):
    """`code` is that of the refusal: stale_token, terminal, wrong_state, not_found..."""

    code: str


class Unknown(Record, frozen=True, tag="unknown"):
    pass


AnyRecord = Invoked | Ok | Failed | Unknown
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(AnyRecord).decode


class Recorder:
    """Writes down what a process does, for as many clients as live in it. `keep` takes each record."""

    def __init__(
        self,
        keep: Callable[[AnyRecord], object],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        first_number: int = 0,
    ) -> None:
        self._keep = keep
        self._clock_ns = clock_ns
        self._numbers = itertools.count(first_number)

    def invoke(self, process: str, call: AnyCall) -> Invoked:
        """Before the call is sent: what the server does on an unrecorded call looks like its own doing."""
        invoked = Invoked(self._clock_ns(), process, next(self._numbers), call)
        self._keep(invoked)
        return invoked

    def ok(self, invoked: Invoked, answer: AnyTold | None = None) -> None:
        self._keep(Ok(self._clock_ns(), invoked.process, invoked.number, answer))

    def fail(self, invoked: Invoked, code: str) -> None:
        """The server refused and changed nothing. Where that is not certain, as after a call that was sent
        again before it was answered, say `unknown`."""
        self._keep(Failed(self._clock_ns(), invoked.process, invoked.number, code))

    def unknown(self, invoked: Invoked) -> None:
        self._keep(Unknown(self._clock_ns(), invoked.process, invoked.number))


class RecordFile:
    """JSON lines. Each record is with the kernel when the call returns: a killed process tears its last
    line at most, which readers drop and a successor on the same file cuts off. One process a file."""

    def __init__(self, path: Path) -> None:
        self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        kept = _whole_lines(path.read_bytes())
        os.ftruncate(self._fd, len(kept))
        self.lines = kept.count(b"\n")

    def __call__(self, record: AnyRecord) -> None:
        line = _encode(record) + b"\n"
        if os.write(self._fd, line) != len(line):
            raise OSError("a record was cut short: the disk is full")

    def close(self) -> None:
        os.close(self._fd)


def recorder_to(path: Path, clock_ns: Callable[[], int] = time.monotonic_ns) -> Recorder:
    """A recorder on a file, new or of a predecessor that died."""
    file = RecordFile(path)
    return Recorder(file, clock_ns, first_number=file.lines)


def _whole_lines(data: bytes) -> bytes:
    return data[: data.rfind(b"\n") + 1]


def records_of(path: Path) -> list[AnyRecord]:
    """Raises msgspec.DecodeError where anything but a torn last line cannot be read."""
    return [_decode(line) for line in _whole_lines(path.read_bytes()).splitlines()]


# -- what a checker looks at


class Op(msgspec.Struct, frozen=True):
    """A call and its end."""

    process: str
    call: AnyCall
    invoked_ns: int
    ended_ns: int = NEVER
    outcome: Literal["ok", "fail", "unknown"] = "unknown"
    answer: AnyTold | None = None
    code: str = ""


class Change(msgspec.Struct, frozen=True):
    """A job got another status. `event` where the server tells it."""

    status: JobStatus
    event: JobEvent | None = None


class FinalJob(msgspec.Struct, frozen=True):
    """A job as the server shows it in the end. `changes` are all its events of live-jobs, each once and
    in order, or None where they are not known to be complete."""

    job_id: str
    status: JobStatus
    attempt: int
    max_attempts: int
    submission: str = ""
    retry_of: str | None = None
    changes: list[Change] | None = None


class Evidence(msgspec.Struct, frozen=True):
    """`finals` are all jobs of the server after the last operation, or None where nobody looked. `drained`:
    the run waited long enough for every job to end."""

    ops: list[Op]
    finals: dict[str, FinalJob] | None = None
    drained: bool = False


def final_of(job: Job, changes: Sequence[Change] | None = None) -> FinalJob:
    return FinalJob(
        job_id=job.job_id,
        status=job.status,
        attempt=job.attempt,
        max_attempts=job.max_attempts,
        submission=str(job.payload.get("submission", "")),
        retry_of=job.retry_of,
        changes=None if changes is None else list(changes),
    )


def ops_of(records: Iterable[AnyRecord]) -> list[Op]:
    """The operations of one recorder, in the order of their calls. Raises ValueError for an end without
    a call, or a second one."""
    calls: dict[int, Invoked] = {}
    ends: dict[int, Ok | Failed | Unknown] = {}
    for record in records:
        if isinstance(record, Invoked):
            calls[record.number] = record
        elif record.number not in calls or record.number in ends:
            raise ValueError(f"an end without a call, or a second one: {record}")
        else:
            ends[record.number] = record
    return [_op(call, ends.get(number)) for number, call in calls.items()]


def _op(call: Invoked, end: Ok | Failed | Unknown | None) -> Op:
    match end:
        case Ok():
            return Op(call.process, call.call, call.at_ns, end.at_ns, "ok", end.answer)
        case Failed():
            return Op(call.process, call.call, call.at_ns, end.at_ns, "fail", code=end.code)
    return Op(call.process, call.call, call.at_ns)


def read(paths: Iterable[Path]) -> list[Op]:
    """The operations of all recorders of a run, in the order of their calls."""
    ops = [op for path in paths for op in ops_of(records_of(path))]
    return sorted(ops, key=lambda op: op.invoked_ns)
