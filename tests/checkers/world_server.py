"""The server of the world: the real job store behind batches, commits and crashes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import msgspec

from checkers.history import Change, FinalJob, final_of
from fleet.errors import FleetError
from fleet.job import TERMINAL, Job
from fleet.job_record import Fact
from fleet.job_store import JobStore
from fleet.messages import Beats, Cancel, Claim, Get, Outbox, Report, Retry, Submit

if TYPE_CHECKING:
    from checkers.world import World

EPOCH_NS = 1_736_937_000_000_000_000
DOOR = "door"
TICK_MS = 40
METHODS: dict[type, str] = {Submit: "submit", Retry: "retry", Claim: "claim", Report: "report"}
Reply = Callable[[Any], None]


class Entry(msgspec.Struct):
    """One call of the store. Its journal: the same calls at the same times give the same store."""

    method: str
    args: tuple[Any, ...]
    facts: list[Fact] = []


class Server:
    def __init__(self, world: World, make_store: Callable[[], JobStore]) -> None:
        self._world = world
        self._make_store = make_store
        self.store = make_store()
        self.journal: list[Entry] = []
        self.committed = 0
        self._inbox: list[tuple[Any, Reply]] = []
        self._first: dict[Reply, Any] = {}
        self._job_ids: dict[str, None] = {}
        self._place = (0, 0)
        self._up = True
        self._doomed = False
        self._life = 0
        self._tick()
        for _ in range(world.rng.randrange(3)):
            world.after(world.rng.uniform(500, 4_500), self._doom)

    @property
    def clock(self) -> tuple[int, int]:
        return self._world.now_ns, EPOCH_NS + self._world.now_ns

    # -- batches

    def receive(self, command: Any, reply: Reply) -> None:
        if not self._up:
            return
        self._inbox.append((command, reply))
        if len(self._inbox) == 1:
            self._in_this_life(self._world.rng.uniform(0, 5), self._decide_all)

    def _decide_all(self) -> None:
        batch, self._inbox = self._inbox, []
        current = [(command, reply) for command, reply in batch if self._is_current(command, reply)]
        self.commit([(reply, self._once(command, reply)) for command, reply in current])

    def _once(self, command: Any, reply: Reply) -> Any:
        """A message that comes twice is decided twice and answered as the first time."""
        return self._first.setdefault(reply, self._decide(command))

    def _is_current(self, command: Any, reply: Reply) -> bool:
        """A door knows what its robots are waiting for: a claim that came too late goes no further, nor
        does the double of a message that was refused."""
        if not isinstance(command, Claim):
            return not isinstance(self._first.get(reply), FleetError)
        return self._world.robots[command.robot_id].request_id == command.request_id

    def _decide(self, command: Any) -> Any:
        match command:
            case Get(job_id):
                return self._execute("get", job_id)
            case Cancel(job_id):
                return self._execute("cancel", job_id, *self.clock)
            case Beats():
                return self._execute("beats", command, self._world.now_ns)
        return self._execute(METHODS[type(command)], command, *self.clock)

    def _execute(self, method: str, *args: Any) -> Any:
        entry = Entry(method, args)
        self.journal.append(entry)
        return self._apply(entry)

    def _apply(self, entry: Entry) -> Any:
        try:
            value = getattr(self.store, entry.method)(*entry.args)
        except FleetError as refusal:
            value = refusal
        entry.facts = [fact for fact in self.store.take_facts() if isinstance(fact, Fact)]
        self._job_ids.update((fact.job.job_id, None) for fact in entry.facts)
        if isinstance(value, Outbox):
            self._place = (value.epoch, value.cursor)
        return value

    def commit(self, answers: list[tuple[Reply, Any]]) -> None:
        """Answers, and what the door fetches, wait until all that they saw is safe."""
        page = self._execute("outbox", DOOR, *self._place, self._world.now_ns)
        upto = len(self.journal)
        if self._doomed and answers:
            self._in_this_life(self._world.rng.uniform(0, 8), self._crash)
        self._in_this_life(self._world.rng.uniform(1, 8), lambda: self._committed(upto, answers, page))

    def _committed(self, upto: int, answers: list[tuple[Reply, Any]], page: Outbox) -> None:
        self.committed = max(self.committed, upto)
        for reply, value in answers:
            reply(value)
        for answer in page.answers:
            self._world.answer(answer)
        for robot_id, job_id in page.cancels:
            self._world.tell_to_stop(robot_id, job_id)

    def _tick(self) -> None:
        self._world.after(TICK_MS, self._tick)
        if self._up:
            self._execute("tick", *self.clock)
            self.commit([])

    # -- crashes

    def _in_this_life(self, ms: float, act: Callable[[], None]) -> None:
        life = self._life
        self._world.after(ms, lambda: act() if life == self._life else None)

    def _doom(self) -> None:
        """It dies about the commit of the next batch, before or after."""
        self._doomed = True

    def _crash(self) -> None:
        self._life += 1
        self._up = self._doomed = False
        self._inbox.clear()
        self._first = {reply: value for reply, value in self._first.items() if isinstance(value, FleetError)}
        self._world.after(self._world.rng.uniform(20, 400), self._restart)

    def _restart(self) -> None:
        self.store = self._make_store()
        self._place = (0, 0)
        self._job_ids.clear()
        self.journal = self.kept()
        self.committed = len(self.journal)
        for entry in self.journal:
            self._apply(entry)
        self._up = True

    def kept(self) -> list[Entry]:
        """What the journal has when the server comes back."""
        return self.journal[: self.committed]

    # -- the end

    def jobs(self) -> list[Job]:
        return [self.store.get(job_id) for job_id in self._job_ids]

    def drained(self) -> bool:
        return self._up and all(job.status in TERMINAL for job in self.jobs())

    def finals(self) -> dict[str, FinalJob]:
        changes: dict[str, list[Change]] = defaultdict(list)
        for fact in (fact for entry in self.journal for fact in entry.facts):
            if fact.announced:
                changes[fact.job.job_id].append(Change(fact.job.status, fact.event))
        return {job.job_id: final_of(job, changes[job.job_id]) for job in self.jobs()}
