"""Robots that ask for work: who waits, who was answered what, and the doors that they wait behind."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from random import Random

from fleet.admissions import EndedAdmissions
from fleet.alarms import Alarms
from fleet.dispatch import Waiting, WaitingClaims
from fleet.doors import Doors
from fleet.job import ACTIVE
from fleet.job_record import JobRecord
from fleet.limits import MS, Limits
from fleet.messages import Answer, Claim, EndClaim, Granted, Parked, Withdraw

Tokens = list[tuple[str, int]]  # job ids, each with the token of the grant


class ClaimDesk:
    """At most one claim waits for each robot. Of `max_robots` the newest answer is known, for who asks
    again."""

    def __init__(self, limits: Limits, rng: Random) -> None:
        self._limits = limits
        self._answered: OrderedDict[str, tuple[str, Tokens]] = OrderedDict()
        self._admissions = EndedAdmissions(limits)
        self._ends = Alarms()  # of each robot that waits
        self.waiting = WaitingClaims()
        self.doors = Doors(limits, rng)

    # -- answers

    def restore(self, records: Sequence[JobRecord]) -> None:
        """The newest claim of each robot, with all that it was granted and still holds."""
        granted: dict[tuple[str, str], Tokens] = {}
        newest: dict[str, str] = {}
        held = [record for record in records if record.job.status in ACTIVE]
        for record in sorted(held, key=lambda record: record.claim_number):
            robot_id = record.job.robot_id or ""
            newest[robot_id] = record.claim_id
            tokens = granted.setdefault((robot_id, record.claim_id), [])
            tokens.append((record.job.job_id, record.token))
        for robot_id, claim_id in newest.items():
            self._know(robot_id, claim_id, granted[robot_id, claim_id])

    def answer(self, claim: Claim, grants: list[Granted], post: bool) -> None:
        """The claim is over. `post` unless it is being answered as the reply to itself."""
        self.waiting.remove(claim.robot_id)
        self._know(claim.robot_id, claim.request_id, [(grant.job.job_id, grant.token) for grant in grants])
        if post:
            self.doors.post(claim.door, Answer(claim.robot_id, claim.request_id, grants))

    def answered(self, claim: Claim) -> Tokens | None:
        """What this claim was granted when it came first; None if it was not granted anything."""
        request_id, tokens = self._answered.get(claim.robot_id, ("", []))
        return tokens if request_id == claim.request_id else None

    def _know(self, robot_id: str, request_id: str, tokens: Tokens) -> None:
        self._answered[robot_id] = (request_id, tokens)
        self._answered.move_to_end(robot_id)
        if len(self._answered) > self._limits.max_robots:
            self._answered.popitem(last=False)

    # -- waiting

    def too_late(self, claim: Claim, now_ns: int) -> bool:
        """It was admitted before its robot was to get no more."""
        return self._admissions.too_late(claim.robot_id, claim.admission, now_ns)

    def park(self, claim: Claim, now_ns: int) -> None:
        """In the place of the robot's older claim, which ends with nothing."""
        older = self.waiting.get(claim.robot_id)
        if older is not None and older.claim.request_id != claim.request_id:
            self._post_nothing(older.claim)
        self.waiting.park(Waiting(claim, now_ns, now_ns + claim.wait_ms * MS))

    def settle(self, claim: Claim) -> Answer | Parked:
        """Of a claim that got nothing at once."""
        waiting = self.waiting.get(claim.robot_id)
        if claim.wait_ms > 0 and waiting is not None:
            self._ends.set_by(claim.robot_id, waiting.until_ns)
            return Parked(claim.request_id)
        self.waiting.remove(claim.robot_id)
        return Answer(claim.robot_id, claim.request_id, [])

    def withdraw(self, command: Withdraw) -> None:
        """The robot is gone: its claim ends without an answer."""
        waiting = self.waiting.get(command.robot_id)
        if waiting is None:
            return
        if (waiting.claim.door, waiting.claim.call) == (command.door, command.call):
            self.waiting.remove(command.robot_id)

    def end(self, command: EndClaim, now_ns: int) -> None:
        """The robot gets no more jobs: its claim of before is answered with none, parked or still to come."""
        self._admissions.end_before(command.robot_id, command.admission, now_ns)
        waiting = self.waiting.get(command.robot_id)
        if waiting is not None and waiting.claim.admission < command.admission:
            self._end(waiting)

    def tick(self, now_ns: int) -> None:
        """Doors that fell silent lose their claims, and waits end."""
        silent = self.doors.drop_silent(now_ns)
        for waiting in self.waiting.all() if silent else ():
            if waiting.claim.door in silent:
                self.waiting.remove(waiting.claim.robot_id)
        for robot_id in self._ends.take_ringing(now_ns):
            ended = self.waiting.get(robot_id)
            if ended is not None and ended.until_ns > now_ns:
                self._ends.set_by(robot_id, ended.until_ns)
            elif ended is not None:
                self._end(ended)

    def next_end_ns(self) -> int | None:
        """When the next wait may be over."""
        return self._ends.next_at()

    def _end(self, waiting: Waiting) -> None:
        self.waiting.remove(waiting.claim.robot_id)
        self._post_nothing(waiting.claim)

    def _post_nothing(self, claim: Claim) -> None:
        self.doors.post(claim.door, Answer(claim.robot_id, claim.request_id, []))
