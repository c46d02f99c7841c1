"""Every job and what may happen to it. Commands in; replies and facts out; nothing waits here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import chain
from random import Random
from typing import Any

import msgspec

from fleet.alarms import Alarms
from fleet.claim_desk import ClaimDesk
from fleet.dead_letters import DeadLetters, Redrive, Redriven, is_dead_letter, redriven_id
from fleet.dispatch import PendingQueue, Waiting, matches, rank
from fleet.errors import Conflict, Full, NotFound, PeerFault
from fleet.explain import Place
from fleet.finished_jobs import FinishedJobs
from fleet.job import ACTIVE, TERMINAL, Ask, Job, JobEvent, JobStatus, next_status
from fleet.job_changes import changes_of
from fleet.job_counter import JobCounter
from fleet.job_entry import JobEntry
from fleet.job_record import Announcement, Fact, JobFilter, JobRecord, JobsAtRest, Said
from fleet.kept_replies import KeptReplies, KeptReply
from fleet.known_ids import KnownIds
from fleet.latest_jobs import latest_jobs
from fleet.limits import MS, SECOND, Limits
from fleet.messages import (
    LATE_ADMISSION,
    Announce,
    Answer,
    Beats,
    Cancel,
    Cancelled,
    Claim,
    Command,
    EndClaim,
    GiveBack,
    Granted,
    JobCounts,
    Keyed,
    Once,
    Outbox,
    Parked,
    Report,
    Retry,
    Submit,
    Withdraw,
)
from fleet.named_jobs import named_jobs
from fleet.reports import REPORTED, check_result, fenced, said_again, said_in, sum_of
from fleet.retry import backoff_ns
from fleet.stuck_jobs import StuckJobs
from fleet.submission import as_submitted, new_jobs, spec_of
from fleet.wall_time import rfc3339

Change = Fact | Announcement | KeptReply


class JobStore:
    """`now_ns` is monotonic, `wall_ns` is since 1970. Facts pile up until `take_facts`.

    In memory are the jobs that live, and the newest finished ones: those are forgotten by `trim`, and come
    back by `remember` when somebody names them."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        self._limits = limits
        self._rng = rng
        self._jobs: dict[str, JobEntry] = {}
        self._seq = 1
        self._number = self._part = self._committed = 0
        self._pending = PendingQueue()
        self._desk = ClaimDesk(limits, rng)
        self._scheduled = Alarms()  # when a job is due, in wall time
        self._deadlines = Alarms()  # the earliest of each job, which may have been put off since
        self._held: dict[str, set[str]] = {}
        self._finished = FinishedJobs(limits)
        self._stuck = StuckJobs()
        self._matchable = False  # a job became due or a claim was parked since the last match
        self._facts: list[Change] = []
        self._announced = KnownIds(limits.max_remembered)
        self._submitted = KnownIds(limits.max_remembered)
        self._retried = KnownIds(limits.max_remembered)
        self.replies = KeptReplies(limits)
        self._counter = JobCounter(limits)

    def restore(self, rest: JobsAtRest, now_ns: int, wall_ns: int) -> None:
        """Once, before the first command. Every lease starts anew at its full length; no token is void;
        claims that were granted get their first answer again, those that waited are sent again by doors."""
        self._number = self._committed = rest.number
        self._part = rest.part
        self._counter.restore(rest.completed_today, rest.failed_today, wall_ns)
        self._announced.update(rest.announcement_ids)
        self._submitted.update(rest.job_ids)
        for record in rest.records:
            self._resume(self._keep(record), record, now_ns, wall_ns)
        self._seq = max(self._seq, rest.seq)
        self.replies.restore(rest.replies_expiring)
        self._desk.restore(rest.records)

    def _resume(self, entry: JobEntry, record: JobRecord, now_ns: int, wall_ns: int) -> None:
        job = entry.job
        if job.status is JobStatus.PENDING:
            self._enqueue(entry, now_ns, wall_ns)
            if entry.due and record.expires_at_ns is not None:
                entry.expires_at_ns = record.expires_at_ns
                self._deadlines.set_by(job.job_id, entry.expires_at_ns)
            elif entry.expires_at_ns is not None:
                self._note(entry)
            return
        self._held.setdefault(job.robot_id or "", set()).add(job.job_id)
        entry.lease_until_ns = now_ns + (entry.lease_ms or self._limits.lease_ms) * MS
        entry.stop_at_ns, entry.timeout_at_ns = record.stop_at_ns, record.timeout_at_ns
        entry.stuck_at_ns = record.stuck_at_ns
        self._stuck.note(entry)
        self._deadlines.set_by(job.job_id, min(entry.deadlines())[0])

    # -- commands

    def submit(self, command: Submit, now_ns: int, wall_ns: int) -> list[Job]:
        """All or nothing. A command that is repeated gets the jobs as they were answered first."""
        repeated = self._submitted_before(command, command.job_ids, wall_ns)
        if repeated is not None:
            return [as_submitted(self._entry(job_id).record()) for job_id in repeated]
        self._check_room(len(command.specs))
        self.replies.admit(command, wall_ns)
        made = [self._add(record, now_ns, wall_ns) for record in new_jobs(command, self._seq, wall_ns)]
        self._keep_reply(command, wall_ns, job_ids=command.job_ids)
        self._match(now_ns, wall_ns)
        return made

    def _submitted_before(self, command: Keyed, job_ids: list[str], wall_ns: int) -> list[str] | None:
        """The jobs that this command made when it came first: its key may name others."""
        if job_ids and job_ids[0] in self._submitted:
            return job_ids
        kept = self.replies.first(command, wall_ns)
        return kept.job_ids if kept else None

    def _room(self) -> int:
        return self._limits.max_pending - self._counter.pending

    def _check_room(self, jobs: int) -> None:
        if jobs > self._room():
            raise Full(f"the queue is at its limit of {self._limits.max_pending} jobs", "queue_full", 1.0)
        if jobs and self._counter.live_bytes >= self._limits.max_live_bytes:
            detail = f"payloads of jobs to be done are at their limit of {self._limits.max_live_bytes} bytes"
            raise Full(detail, "queue_full", 1.0)

    def _add(self, record: JobRecord, now_ns: int, wall_ns: int) -> Job:
        self._submitted.add(record.job.job_id)
        entry = self._keep(record)
        self._enqueue(entry, now_ns, wall_ns)
        self._record(entry, JobEvent.SUBMIT, True, wall_ns)
        return record.job

    def _keep_reply(self, command: Once, wall_ns: int, **reply: Any) -> None:
        if command.request_id:
            self._facts.append(self.replies.keep(command, wall_ns, **reply))

    def _keep(self, record: JobRecord) -> JobEntry:
        entry = JobEntry.of(record)
        self._jobs[record.job.job_id] = entry
        self._seq = max(self._seq, record.seq + 1)
        self._counter.add(record.job.status)
        self._counter.live_bytes += 0 if record.job.status in TERMINAL else entry.size_bytes
        return entry

    def retry(self, command: Retry, now_ns: int, wall_ns: int) -> Job:
        """A new job like one that failed or was cancelled. Raises Conflict for any other."""
        repeated = self._submitted_before(command, [command.new_job_id], wall_ns)
        if repeated is not None:
            return as_submitted(self._entry(repeated[0]).record())
        entry = self._entry(command.job_id)
        job = entry.job
        if job.status not in (JobStatus.FAILED, JobStatus.CANCELLED):
            raise Conflict(f"a job that is {job.status} does not admit retry", "wrong_state")
        named = {"request_id": command.request_id, "fingerprint": command.fingerprint}
        again = Submit([command.new_job_id], [spec_of(job)], job.job_id, **named)
        [made] = self.submit(again, now_ns, wall_ns)
        self._mark_retried(entry, made.job_id, wall_ns)
        return made

    def _mark_retried(self, entry: JobEntry, new_job_id: str, wall_ns: int) -> None:
        entry.job = msgspec.structs.replace(entry.job, retried_by=new_job_id)
        self._retried.add(entry.job.job_id)
        self._finished.add(entry.job.job_id, entry.size_bytes, self._number + 1)
        self._record(entry, JobEvent.RETRIED, False, wall_ns)

    def redrive(self, command: Redrive, found: DeadLetters, now_ns: int, wall_ns: int) -> Redriven:
        """As many as the queue has room for. `found` was read from the journal, and may have been redriven
        since."""
        kept = self.replies.first(command, wall_ns)
        if kept is not None and kept.redriven is not None:
            return kept.redriven
        for record in found.records:
            self.remember(record)
        entries = [self._jobs[record.job.job_id] for record in found.records]
        dead = [e for e in entries if is_dead_letter(e.job) and e.job.job_id not in self._retried]
        self._check_room(min(1, len(dead)))
        self.replies.admit(command, wall_ns)
        taken = dead[: self._room()]
        for entry in taken:
            self._redrive(entry, redriven_id(command.request_id, entry.job.job_id), now_ns, wall_ns)
        rest = len(dead) - len(taken)
        place = taken[-1].seq if rest else found.place
        reply = Redriven(len(taken), found.remaining + rest, place, command.call)
        self._keep_reply(command, wall_ns, redriven=reply)
        self._match(now_ns, wall_ns)
        return reply

    def _redrive(self, entry: JobEntry, new_job_id: str, now_ns: int, wall_ns: int) -> None:
        again = Submit([new_job_id], [spec_of(entry.job)], entry.job.job_id)
        [record] = new_jobs(again, self._seq, wall_ns)
        self._add(record, now_ns, wall_ns)
        self._mark_retried(entry, new_job_id, wall_ns)

    def get(self, job_id: str) -> Job:
        return self._entry(job_id).job

    def cancel_once(self, command: Cancel, now_ns: int, wall_ns: int) -> Cancelled:
        """`cancel`, or the first reply to it: by the time that it is repeated the job may be another's."""
        kept = self.replies.first(command, wall_ns)
        if kept is not None and kept.cancelled is not None:
            return kept.cancelled
        self.replies.admit(command, wall_ns)
        reply = self.cancel(command.job_id, now_ns, wall_ns)
        self._keep_reply(command, wall_ns, cancelled=reply)
        return reply

    def cancel(self, job_id: str, now_ns: int, wall_ns: int) -> Cancelled:
        entry = self._entry(job_id)
        before = entry.job.status
        if before in TERMINAL:
            return Cancelled(job_id, False, before, f"the job is {before} already")
        if entry.job.cancel_requested:
            return Cancelled(job_id, True, before, "cancel was already requested")
        if before is JobStatus.PENDING:
            self._move(entry, JobEvent.CANCEL, now_ns, wall_ns)
            return Cancelled(job_id, True, before, "cancelled")
        self._request_stop(entry, JobEvent.CANCEL, now_ns, wall_ns)
        return Cancelled(job_id, True, before, "cancel requested; the robot has been told")

    def report(self, report: Report, now_ns: int, wall_ns: int) -> Job:
        """Raises NotFound, Forbidden (another robot's job), Conflict (stale token, wrong state)."""
        entry = self._entry(report.job_id)
        if report.event not in REPORTED:
            raise PeerFault(f"a robot does not report {report.event}", "bad_event")
        job = entry.job
        if said_again(entry, report):
            return job  # its first answer was lost
        if refusal := fenced(entry, report):
            raise refusal
        if report.event is JobEvent.PROGRESS:
            return self._progress(entry, report, now_ns, wall_ns)
        check_result(report.result)
        self._move(entry, report.event, now_ns, wall_ns, report)
        self._match(now_ns, wall_ns)
        return entry.job

    def _progress(self, entry: JobEntry, report: Report, now_ns: int, wall_ns: int) -> Job:
        """The job shows the newest; its history tells of the first `max_progress_events` that say anything
        new: the answer to the last one may have been lost."""
        next_status(entry.job.status, report.event, self._ask(entry))
        entry.job = msgspec.structs.replace(
            entry.job, progress=report.progress, last_progress_at=rfc3339(wall_ns), stuck=False
        )
        entry.stuck_at_ns = now_ns + self._limits.stuck_after_s * SECOND
        self._stuck.note(entry)
        last_sum, entry.progress_sum = entry.progress_sum, sum_of(report)
        if entry.progress_sum == last_sum or entry.progress_events >= self._limits.max_progress_events:
            self._note(entry)
            return entry.job
        entry.progress_events += 1
        self._record(entry, report.event, False, wall_ns, said_in(report))
        return entry.job

    def announce(self, command: Announce, wall_ns: int) -> None:
        """Says what it is told and changes no job. The last `max_remembered` ids are known again."""
        if command.announcement_id in self._announced:
            return
        self._announced.add(command.announcement_id)
        number, self._number, self._part = self._number, self._number + 1, 0
        at = rfc3339(wall_ns)
        self._facts.append(Announcement(number, command.announcement_id, command.job_id, command.status, at))

    def held(self, robot_id: str) -> list[str]:
        return sorted(self._held.get(robot_id, ()))

    def beats(self, beats: Beats, now_ns: int) -> list[str]:
        """Extends the leases of the jobs named; returns those that the robot must stop: cancelled,
        or no longer its own. A beat from before its newest grant of the same job says nothing about that."""
        stop = []
        for named in beats.jobs:
            entry = self._jobs.get(named.job_id)
            if entry is None or entry.job.status not in ACTIVE or entry.job.robot_id != beats.robot_id:
                stop.append(named.job_id)
                continue
            if entry.token != named.token:
                stop += [named.job_id] if named.token > entry.token else []
                continue
            if beats.lease_ms > entry.lease_ms:
                entry.lease_ms = beats.lease_ms  # its robot beats more slowly now, after a restart too
                self._note(entry)
            entry.lease_until_ns = now_ns + entry.lease_ms * MS
            if entry.job.cancel_requested or entry.timed_out:
                stop.append(named.job_id)
        return stop

    def claim(self, claim: Claim, now_ns: int, wall_ns: int) -> Answer | Parked:
        """Grants at once what fits, else parks the claim for `wait_ms`. A repeated request id gets its
        first answer; a new one replaces the robot's parked claim."""
        self._desk.doors.hear(claim.door, now_ns)
        repeated = self._first_answer(claim)
        if repeated is not None:
            return repeated
        if self._desk.too_late(claim, now_ns):
            raise Conflict(f"{claim.robot_id} was admitted before its claims were ended", LATE_ADMISSION)
        held = len(self._held.get(claim.robot_id, ()))
        if held >= claim.max_concurrent_jobs:
            raise Conflict(f"{claim.robot_id} already holds its {held} jobs", "no_free_slot")
        self._desk.park(claim, now_ns)
        self._matchable = True
        self._match(now_ns, wall_ns, asking=claim)
        return self._first_answer(claim) or self._desk.settle(claim)

    def withdraw(self, command: Withdraw) -> None:
        self._desk.withdraw(command)

    def give_back(self, command: GiveBack, now_ns: int, wall_ns: int) -> None:
        """Does nothing if the job went its way meanwhile."""
        entry = self._jobs.get(command.job_id)
        if entry is None or entry.token != command.token or entry.job.status not in ACTIVE:
            return
        mine = entry.job.robot_id == command.robot_id and entry.door in ("", command.door)
        if mine and entry.call <= command.call:
            self._move(entry, JobEvent.RELEASE, now_ns, wall_ns)
            self._match(now_ns, wall_ns)

    def end_claim(self, command: EndClaim, now_ns: int) -> None:
        self._desk.end(command, now_ns)

    def outbox(self, door: str, epoch: int, cursor: int, now_ns: int) -> Outbox:
        """What the door has not seen; `epoch` and `cursor` of its last page confirm what it has."""
        return self._desk.doors.page(door, epoch, cursor, now_ns)

    @property
    def posted(self) -> int:
        """A change means news for some door."""
        return self._desk.doors.posted

    # -- the passing of time

    def tick(self, now_ns: int, wall_ns: int) -> None:
        """Due jobs become visible, leases and waits end, silent doors lose their claims."""
        self._counter.roll_day(wall_ns)
        for job_id in self._scheduled.take_ringing(wall_ns):
            entry = self._jobs[job_id]
            self._enqueue(entry, now_ns, wall_ns)
            if entry.expires_at_ns is not None:
                self._note(entry)
        for job_id in self._deadlines.take_ringing(now_ns):
            self._deadline(self._jobs[job_id], now_ns, wall_ns)
        self._desk.tick(now_ns)
        self._match(now_ns, wall_ns)
        self.trim(self._committed)

    def next_tick_ns(self, now_ns: int, wall_ns: int) -> int | None:
        """Before then a tick would change nothing, but for doors that fall silent."""
        due_ns = self._scheduled.next_at()
        times = (
            None if due_ns is None else now_ns + due_ns - wall_ns,
            self._deadlines.next_at(),
            self._desk.next_end_ns(),
        )
        return min((at_ns for at_ns in times if at_ns is not None), default=None)

    def _deadline(self, entry: JobEntry, now_ns: int, wall_ns: int) -> None:
        """Acts on every deadline of the job that has passed, first things first."""
        while next_up := min(entry.deadlines(), default=None):
            at_ns, event = next_up
            if at_ns > now_ns:
                self._deadlines.set_by(entry.job.job_id, at_ns)
                return
            if event is JobEvent.TIMEOUT:
                entry.timeout_at_ns = None
                entry.timed_out = True
                self._request_stop(entry, event, now_ns, wall_ns)
            elif event is JobEvent.STUCK:
                self._mark_stuck(entry, wall_ns)
            else:
                self._move(entry, event, now_ns, wall_ns)

    def _mark_stuck(self, entry: JobEntry, wall_ns: int) -> None:
        """Its robot keeps it alive, and nothing is heard of it: for people to look at."""
        entry.stuck_at_ns = None
        entry.job = msgspec.structs.replace(entry.job, stuck=True)
        self._stuck.note(entry)
        self._record(entry, JobEvent.STUCK, False, wall_ns)

    def stuck_page(self, wanted: JobFilter, before: int, limit: int) -> tuple[list[Job], int]:
        return self._stuck.page(wanted, before, limit, self._limits.max_page_bytes)

    def place(self, job_id: str, robot_ids: Sequence[str], now_ns: int, wall_ns: int) -> Place:
        """What the job waits for, and what these robots do. Raises NotFound."""
        entry = self._entry(job_id)
        if entry.job.status is not JobStatus.PENDING:
            return Place(entry.job)
        expires = entry.expires_at_ns
        return Place(
            entry.job,
            0 if entry.due else max(1, (entry.due_wall_ns - wall_ns) // MS),
            self._pending.outranking(job_id, entry.needs, self._limits.max_outranking),
            None if expires is None else max(0, expires - now_ns) // MS,
            {robot_id: len(self._held.get(robot_id, ())) for robot_id in robot_ids},
            [robot_id for robot_id in robot_ids if self._desk.waiting.get(robot_id) is not None],
        )

    def depth(self) -> int:
        """Pending jobs whose time has come."""
        return len(self._pending)

    def counts(self, now_ns: int, wall_ns: int) -> JobCounts:
        return self._counter.counts(self.depth(), len(self._stuck), now_ns, wall_ns)

    def take_facts(self) -> list[Change]:
        facts, self._facts = self._facts, []
        return facts

    # -- the rules behind

    def _match(self, now_ns: int, wall_ns: int, asking: Claim | None = None) -> None:
        if not self._matchable:
            return
        self._matchable = False
        full: dict[str, tuple[Waiting, list[Granted]]] = {}
        for job_id, waiting in matches(self._pending, self._desk.waiting):
            claim = waiting.claim
            grant = self._grant(self._jobs[job_id], claim, now_ns, wall_ns)
            _, grants = full.setdefault(claim.robot_id, (waiting, []))
            grants.append(grant)
            held = len(self._held[claim.robot_id])
            if len(grants) >= claim.limit or held >= claim.max_concurrent_jobs:
                self._desk.waiting.remove(claim.robot_id)
        for waiting, grants in full.values():
            self._desk.answer(waiting.claim, grants, post=waiting.claim is not asking)

    def _grant(self, entry: JobEntry, claim: Claim, now_ns: int, wall_ns: int) -> Granted:
        entry.token += 1
        entry.door, entry.call = claim.door, claim.call
        entry.claim_id, entry.claim_number = claim.request_id, self._number
        entry.lease_ms = claim.lease_ms or self._limits.lease_ms
        self._move(entry, JobEvent.CLAIM, now_ns, wall_ns, robot_id=claim.robot_id)
        return Granted(entry.job, entry.token, entry.lease_ms)

    def _first_answer(self, claim: Claim) -> Answer | None:
        tokens = self._desk.answered(claim)
        if tokens is None:
            return None
        mine = [
            (entry, token)
            for job_id, token in tokens
            if (entry := self._jobs.get(job_id)) and entry.token == token and entry.job.status in ACTIVE
        ]
        for entry, _ in mine:
            entry.door, entry.call = claim.door, claim.call
        grants = [Granted(entry.job, token, entry.lease_ms) for entry, token in mine]
        return Answer(claim.robot_id, claim.request_id, grants)

    def _request_stop(self, entry: JobEntry, event: JobEvent, now_ns: int, wall_ns: int) -> None:
        next_status(entry.job.status, event, self._ask(entry))
        # Asked once more, by its owner or its timeout, the job has no longer than it had.
        entry.stop_at_ns = entry.stop_at_ns or now_ns + self._limits.cancel_grace_ms * MS
        self._deadlines.set_by(entry.job.job_id, entry.stop_at_ns)
        if event is JobEvent.CANCEL:
            entry.job = msgspec.structs.replace(entry.job, cancel_requested=True)
        self._record(entry, event, False, wall_ns)
        self._desk.doors.post(entry.door, (entry.job.robot_id or "", entry.job.job_id))

    def _ask(self, entry: JobEntry, retryable: bool = True) -> Ask:
        job = entry.job
        return Ask(job.attempt < job.max_attempts, job.cancel_requested, retryable, entry.timed_out)

    def _move(
        self,
        entry: JobEntry,
        event: JobEvent,
        now_ns: int,
        wall_ns: int,
        report: Report | None = None,
        robot_id: str | None = None,
    ) -> None:
        """The one place where a job's status changes. Decides first, so that a refusal changes nothing."""
        before = entry.job
        retryable = report.retryable if report else True
        status = next_status(before.status, event, self._ask(entry, retryable))
        changes = changes_of(before, event, status, report, robot_id, entry.timed_out, rfc3339(wall_ns))
        entry.job = msgspec.structs.replace(before, status=status, stuck=False, **changes)
        self._leave(before)
        self._arrive(entry, event, now_ns, wall_ns)
        self._stuck.note(entry)
        self._counter.remove(before.status)
        self._counter.add(status)
        if report is not None:
            entry.last_report = (report.robot_id, report.token, report.event)
        self._record(entry, event, True, wall_ns)

    def _leave(self, before: Job) -> None:
        self._pending.discard(before.job_id)
        self._scheduled.stop(before.job_id)
        if before.robot_id is not None and before.status in ACTIVE:
            held = self._held[before.robot_id]
            held.discard(before.job_id)
            if not held:
                del self._held[before.robot_id]

    def _arrive(self, entry: JobEntry, event: JobEvent, now_ns: int, wall_ns: int) -> None:
        job = entry.job
        entry.expires_at_ns = None
        if job.status in ACTIVE:
            self._held.setdefault(job.robot_id or "", set()).add(job.job_id)
            entry.lease_until_ns = now_ns + entry.lease_ms * MS
            entry.stuck_at_ns = now_ns + self._limits.stuck_after_s * SECOND
            self._deadlines.set_by(job.job_id, min(entry.lease_until_ns, entry.stuck_at_ns))
            if event is JobEvent.CLAIM:
                self._counter.waited(wall_ns - entry.due_wall_ns, now_ns)
            elif event is JobEvent.START and job.timeout_s:
                entry.timeout_at_ns = now_ns + int(job.timeout_s * SECOND)
                self._deadlines.set_by(job.job_id, entry.timeout_at_ns)
            return
        entry.lease_until_ns = entry.stop_at_ns = entry.timeout_at_ns = entry.stuck_at_ns = None
        if job.status is JobStatus.PENDING:
            self._return(entry, event, now_ns, wall_ns)
        else:
            self._finish(entry, wall_ns)

    def _return(self, entry: JobEntry, event: JobEvent, now_ns: int, wall_ns: int) -> None:
        """Back to the queue. The first lost lease costs no wait: the robot failed, not the job."""
        free = event is JobEvent.RELEASE or (event is JobEvent.LEASE_EXPIRED and entry.job.attempt == 1)
        wait_ns = 0 if free else backoff_ns(entry.job.attempt, self._limits, self._rng)
        entry.due_wall_ns = wall_ns + wait_ns
        entry.job = msgspec.structs.replace(
            entry.job, not_before=rfc3339(entry.due_wall_ns) if wait_ns else None
        )
        self._enqueue(entry, now_ns, wall_ns)

    def _enqueue(self, entry: JobEntry, now_ns: int, wall_ns: int) -> None:
        job = entry.job
        entry.due = entry.due_wall_ns <= wall_ns
        if not entry.due:
            self._scheduled.set_by(job.job_id, entry.due_wall_ns)
            return
        self._matchable = True
        order = rank(entry.due_wall_ns, job.priority, entry.seq, self._limits.aging_ms_per_level)
        self._pending.push(job.job_id, entry.needs, order)
        if job.pending_timeout_s:
            entry.expires_at_ns = now_ns + round(job.pending_timeout_s * SECOND)
            self._deadlines.set_by(job.job_id, entry.expires_at_ns)

    def _finish(self, entry: JobEntry, wall_ns: int) -> None:
        job = entry.job
        self._counter.end(job.status, wall_ns)
        self._counter.live_bytes -= entry.size_bytes
        entry.add_result_size()
        self._shelve(entry, self._number + 1)

    def _shelve(self, entry: JobEntry, number: int) -> None:
        self._deadlines.stop(entry.job.job_id)
        self._finished.add(entry.job.job_id, entry.size_bytes, number)

    def trim(self, committed: int) -> None:
        """Forgets the oldest finished jobs beyond the bounds, but none of the events from number `committed`
        on: who asked for one would not find it anywhere. A tick does so too: a store may be only read."""
        self._committed = committed
        for job_id in self._finished.take_excess(committed):
            self._counter.remove(self._jobs.pop(job_id).job.status)

    def unanswered(self, commands: Iterable[Command | Redrive]) -> set[str]:
        """Request ids whose first reply, if there was one, is in the journal only: `replies.remember` it."""
        return {c.request_id for c in commands if isinstance(c, Once) and self.replies.missing(c.request_id)}

    def forgotten(self, commands: Iterable[Command | Redrive]) -> set[str]:
        """Jobs that these are about and that are not in memory, if they exist: `remember` them first."""
        named = named_jobs(commands, self._submitted, self.replies)
        return {job_id for job_id in named if job_id not in self._jobs}

    def remember(self, record: JobRecord) -> None:
        """A finished job that somebody names again; for a job that is known nothing changes."""
        if record.job.job_id not in self._jobs:
            self._shelve(self._keep(record), self._number)

    def latest(self, limit: int) -> tuple[list[tuple[Job, str]], bool]:
        """Jobs with the time of their last change, and whether every live job is among them."""
        return latest_jobs(self._jobs, chain.from_iterable(self._held.values()), self._finished, limit)

    def _record(
        self, entry: JobEntry, event: JobEvent, announced: bool, wall_ns: int, said: Said | None = None
    ) -> None:
        at = rfc3339(wall_ns)
        if announced:
            number, self._number, self._part = self._number, self._number + 1, 0
            entry.changed_at = at
        else:
            self._part += 1
            number = self._number - 1
        self._facts.append(Fact(number, self._part, event, at, entry.record(), said))

    def _note(self, entry: JobEntry) -> None:
        """For the next life of the store; neither the feed nor the history tells of it."""
        record = entry.record()
        self._facts.append(Fact(self._number - 1, self._part, JobEvent.HEARTBEAT, "", record, recorded=False))

    def _entry(self, job_id: str) -> JobEntry:
        entry = self._jobs.get(job_id)
        if entry is None:
            raise NotFound(f"no job {job_id}")
        return entry
