"""The rules of the lab in plain Python, those that production has and those that it has not.

Slow, and as simple as can be: lists that are searched from one end to the other. The kernels are held against
it, job by job.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from simulators.distributions import Distribution
from simulators.job_draws import FOREVER_NS, JobDraws, Thinking, open_model
from simulators.keyed import LONGEST, NANO, Ints, Purpose, key_of, sample_ns, table_of, uniforms
from simulators.queue.arrays import aging_ns, backoff_ns, can, slots_of
from simulators.queue.engine import Engine, Turn
from simulators.queue.kernels.layout import MOST_EXPONENT
from simulators.queue.kernels.tally import NOTHING, Cell, Fate, Tally, new_tally
from simulators.queue.ledger import Ledger
from simulators.scenario import ClosedArrivals, Discouraged, Fleet, JobClass, Jobs, Scenario

Can = tuple[bool, ...]  # of each fleet, whether it can do a job


@dataclass(eq=False)
class _Job:
    number: int
    klass: int
    asks: JobClass
    work_ns: int
    patience_ns: int
    due_ns: int
    left_ns: int
    user: int | None
    attempt: int = 1
    deadline: object = None  # of its patience, another one each time; None if it has none


@dataclass(eq=False)
class _Robot:
    number: int
    fleet: Fleet
    wear_ns: int = 0  # how long it works until it breaks
    times: int = 0  # that it broke
    job: _Job | None = None
    broken: bool = False
    since_ns: int = 0  # when it became idle, or began to work
    ends_ns: int = 0
    work: object = None  # what it is about to complete, another one each time
    wearing: object = None  # what it is about to break of


def play(scenario: Scenario, folder: Path, seed: int, warm_up_ns: int = 0, told: Ints = NOTHING) -> Tally:
    """As `fast.play`."""
    assert scenario.jobs is not None
    lasts_ns = round(scenario.lasts_s * NANO)
    tally = new_tally(lasts_ns, warm_up_ns, len(scenario.jobs.classes), slots_of(scenario))
    ledger = Ledger(tally, told)
    PlainWorld(scenario, scenario.jobs, seed, ledger).play(folder, lasts_ns)
    ledger.close()
    return tally


class PlainWorld:
    def __init__(self, scenario: Scenario, jobs: Jobs, seed: int, ledger: Ledger) -> None:
        self._engine = Engine()
        self._scenario = scenario
        self._jobs = jobs
        self._classes = list(jobs.classes.values())
        self._seed = seed
        self._ledger = ledger
        self._key = key_of(seed)
        self._number = self._picks = 0
        # Jobs that the same fleets can do are in one line; those in `heads` go before all others.
        self._lines: dict[Can, list[_Job]] = {self._can(each): [] for each in self._classes}
        self._heads: dict[Can, list[_Job]] = {who: [] for who in self._lines}
        self._robots = [
            _Robot(number, fleet)
            for number, fleet in enumerate(
                fleet
                for fleet in scenario.fleets.values()
                for _ in range(fleet.count * fleet.max_concurrent_jobs)
            )
        ]
        self._idle = list(self._robots)
        self._broken: list[_Robot] = []
        self._crew = len(self._robots) if scenario.repair_crew is None else scenario.repair_crew
        self._thinking: Thinking | None = None
        self._times: Iterator[int] = iter(())

    def play(self, folder: Path, lasts_ns: int) -> None:
        self._ends_ns = lasts_ns
        for robot in self._robots:
            self._wear(robot)
        if isinstance(self._jobs.arrivals, ClosedArrivals):
            self._draws = JobDraws(self._jobs, self._seed)
            self._thinking = Thinking(self._jobs.arrivals.think, self._seed)
            for user in range(self._jobs.arrivals.users):
                self._comes(self._thinking.before_the_first(user), user)
        else:
            self._draws, blocks = open_model(self._jobs, self._scenario.load, self._seed, folder)
            self._times = (at_ns for block in blocks for at_ns in block.tolist())
            self._next_comes()
        self._engine.run(lasts_ns)

    @property
    def _now_ns(self) -> int:
        return self._engine.now_ns

    def _can(self, asks: JobClass) -> Can:
        return tuple(can(fleet, asks) for fleet in self._scenario.fleets.values())

    # -- jobs come and go

    def _next_comes(self) -> None:
        at_ns = next(self._times, None)
        if at_ns is not None:
            self._comes(at_ns, None)

    def _comes(self, at_ns: int, user: int | None) -> None:
        if at_ns < self._ends_ns:  # nobody comes at the very end
            self._engine.at(at_ns, Turn.ARRIVAL, user or 0, partial(self._arrive, user))

    def _arrive(self, user: int | None) -> None:
        self._number += 1
        klass, work_ns, patience_ns = (int(each[0]) for each in self._draws.of(self._number, 1))
        fate = self._fate_of(self._number)
        self._ledger.came(self._number, klass, self._now_ns, fate)
        if fate is Fate.THERE:
            job = _Job(
                self._number, klass, self._classes[klass], work_ns, patience_ns, self._now_ns, work_ns, user
            )
            self._find_robot(job, fresh=True)
        else:
            self._think(self._number, user)
        if user is None:
            self._next_comes()

    def _fate_of(self, number: int) -> Fate:
        there, queue = self._ledger.there, self._scenario.queue
        if queue.capacity is not None and there >= queue.capacity:
            return Fate.BLOCKED
        if queue.balking is None:
            return Fate.THERE
        if isinstance(queue.balking, Discouraged):
            joins = 1 / (there + 1)
        else:
            joins = queue.balking.probabilities[min(there, len(queue.balking.probabilities) - 1)]
        return Fate.THERE if uniforms(self._key, Purpose.JOIN, number, 0)[0] < joins else Fate.BALKED

    def _leave(self, job: _Job, fate: Fate) -> None:
        self._ledger.leaves(job.number, self._now_ns, fate)
        self._think(job.number, job.user)

    def _think(self, number: int, user: int | None) -> None:
        if self._thinking is not None and user is not None:
            self._comes(self._now_ns + self._thinking.after(number), user)

    # -- jobs and robots find each other

    def _find_robot(self, job: _Job, fresh: bool, head: bool = False) -> None:
        """Who has been idle longest. `fresh`: it may lose its patience."""
        idle = [robot for robot in self._idle if can(robot.fleet, job.asks)]
        if idle:
            robot = min(idle, key=lambda each: (each.since_ns, each.number))
            self._idle.remove(robot)
            self._begin(job, robot)
            return
        self._wait(job, fresh, head)
        if self._scenario.queue.discipline == "preemptive":
            self._interrupt_for(job)

    def _wait(self, job: _Job, fresh: bool, head: bool = False) -> None:
        (self._heads if head else self._lines)[self._can(job.asks)].append(job)
        if fresh and job.patience_ns < FOREVER_NS:
            job.deadline = object()
            ends_ns, call = self._now_ns + job.patience_ns, partial(self._give_up, job, job.deadline)
            self._engine.at(ends_ns, Turn.FLEET, job.number, call)

    def _give_up(self, job: _Job, deadline: object) -> None:
        if job.deadline is deadline:
            self._drop(job)
            self._leave(job, Fate.ABANDONED)

    def _drop(self, job: _Job) -> None:
        """The last takes its place; that matters only to whoever picks one at random."""
        for lines in (self._heads, self._lines):
            line = lines[self._can(job.asks)]
            if job in line:
                line[line.index(job)] = line[-1]
                line.pop()

    def _order(self, job: _Job) -> tuple[int, int, int]:
        """Who waits: the smallest is next."""
        queue, priority = self._scenario.queue, job.asks.priority
        match queue.discipline:
            case "production":
                return 0, job.due_ns + priority * aging_ns(queue), job.number
            case "fifo":
                return 0, job.due_ns, job.number
            case "lifo":
                return 0, -job.due_ns, -job.number
            case "random":
                return 0, 0, 0
            case _:
                return priority, job.due_ns, job.number

    def _interrupt_for(self, job: _Job) -> None:
        """Whoever does what is least urgent, and of that what came last."""
        busy = [
            (robot, robot.job)
            for robot in self._robots
            if robot.job is not None and not robot.broken and can(robot.fleet, job.asks)
        ]
        if not busy:
            return
        robot, other = max(busy, key=lambda pair: self._order(pair[1]))
        if other.asks.priority > job.asks.priority:
            self._stop_work(robot, Cell.WAITING)
            self._drop(job)
            self._begin(job, robot)
            self._find_robot(other, fresh=False)

    def _find_job(self, robot: _Robot) -> None:
        robot.job = None
        job = self._best(robot)
        if job is None:
            robot.since_ns = self._now_ns
            self._idle.append(robot)
        else:
            self._drop(job)
            self._begin(job, robot)

    def _best(self, robot: _Robot) -> _Job | None:
        place = list(self._scenario.fleets.values()).index(robot.fleet)
        for lines in (self._heads, self._lines):
            fit = [job for who, line in lines.items() if who[place] for job in line]
            if not fit:
                continue
            if self._scenario.queue.discipline == "random" and lines is self._lines:
                self._picks += 1
                return fit[int(uniforms(self._key, Purpose.PICK, self._picks, 0)[0] * len(fit))]
            return min(fit, key=self._order)
        return None

    def _begin(self, job: _Job, robot: _Robot) -> None:
        """Or go on with what it had begun."""
        now_ns, job.deadline = self._now_ns, None
        self._ledger.turns(job.number, Cell.WORKING, now_ns)
        self._ledger.robot_works(robot.number, now_ns)
        robot.job, robot.since_ns, robot.work = job, now_ns, object()
        robot.ends_ns = now_ns + served_ns(job.left_ns, robot.fleet.speed)
        call = partial(self._complete, robot, robot.work)
        self._engine.at(robot.ends_ns, Turn.ROBOT, 2 * robot.number, call)
        if robot.fleet.breakdowns is not None and robot.fleet.breakdowns.counts == "working":
            self._breaks(robot, now_ns + robot.wear_ns)

    def _stop_work(self, robot: _Robot, state: Cell, done: bool = False) -> _Job:
        job, now_ns, speed = robot.job, self._now_ns, robot.fleet.speed
        assert job is not None
        self._ledger.robot_stops(robot.number, now_ns, done)
        self._ledger.turns(job.number, state, now_ns)
        left_ns = robot.ends_ns - now_ns
        job.left_ns = left_ns if speed == 1 else round(left_ns * speed)
        robot.work = None
        if robot.fleet.breakdowns is not None and robot.fleet.breakdowns.counts == "working":
            robot.wear_ns -= now_ns - robot.since_ns
            robot.wearing = None
        return job

    def _complete(self, robot: _Robot, work: object) -> None:
        if robot.work is not work or robot.job is None:
            return
        job, share = robot.job, robot.fleet.failure_probability
        fails = uniforms(self._key, Purpose.FAILURE, job.number, job.attempt)[0] < share
        self._stop_work(robot, Cell.HELD, done=not fails)
        robot.job = None
        if fails and job.attempt < job.asks.max_attempts:
            self._try_again(job)
        else:
            self._leave(job, Fate.FAILED if fails else Fate.SERVED)
        self._find_job(robot)

    def _try_again(self, job: _Job) -> None:
        """At once, or after a back-off: full jitter, as in fleet/retry.py."""
        base_ns, most_ns = backoff_ns(self._scenario.queue)
        ceiling_ns = min(float(most_ns), base_ns * 2.0 ** min(job.attempt - 1, MOST_EXPONENT))
        wait_ns = int(uniforms(self._key, Purpose.BACKOFF, job.number, job.attempt)[0] * ceiling_ns)
        if job.asks.each_attempt == "anew":
            table = table_of([job.asks.service])
            job.work_ns = int(sample_ns(*table, 0, self._key, Purpose.SERVICE, job.number, job.attempt))
        job.attempt += 1
        job.left_ns, job.due_ns = job.work_ns, self._now_ns + wait_ns
        if wait_ns > 0:
            self._engine.at(job.due_ns, Turn.FLEET, job.number, partial(self._is_due, job))
        else:
            self._is_due(job)

    def _is_due(self, job: _Job) -> None:
        self._ledger.turns(job.number, Cell.WAITING, self._now_ns)
        self._find_robot(job, fresh=True)

    # -- robots break, and are mended

    def _wear(self, robot: _Robot) -> None:
        """From new on: until it breaks."""
        breakdowns = robot.fleet.breakdowns
        if breakdowns is None:
            return
        robot.wear_ns = self._draw(breakdowns.up, Purpose.UP, robot)
        if breakdowns.counts == "always":
            self._breaks(robot, self._now_ns + robot.wear_ns)

    def _draw(self, distribution: Distribution, purpose: Purpose, robot: _Robot) -> int:
        table = table_of([distribution])
        return int(sample_ns(*table, 0, self._key, purpose, robot.number, robot.times))

    def _breaks(self, robot: _Robot, at_ns: int) -> None:
        robot.wearing = object()
        call = partial(self._break, robot, robot.wearing)
        self._engine.at(at_ns, Turn.ROBOT, 2 * robot.number + 1, call)

    def _break(self, robot: _Robot, wearing: object) -> None:
        breakdowns = robot.fleet.breakdowns
        if robot.wearing is not wearing or breakdowns is None:
            return
        if robot.job is None:
            self._idle.remove(robot)
        else:
            self._stop_work(robot, Cell.HELD)
        robot.broken, robot.wearing = True, None
        self._ledger.robot_breaks(robot.number, self._now_ns)
        self._broken.append(robot)
        self._repair_next()
        if robot.job is not None and breakdowns.job == "restarts":
            robot.job.left_ns = robot.job.work_ns
        elif robot.job is not None and breakdowns.job == "head":
            job, robot.job = robot.job, None
            self._ledger.turns(job.number, Cell.WAITING, self._now_ns)
            self._find_robot(job, fresh=False, head=True)

    def _repair_next(self) -> None:
        """Who broke first, if somebody has time."""
        while self._crew > 0 and self._broken:
            self._crew -= 1
            robot = self._broken.pop(0)
            assert robot.fleet.breakdowns is not None
            takes_ns = self._draw(robot.fleet.breakdowns.repair, Purpose.REPAIR, robot)
            call = partial(self._mend, robot)
            self._engine.at(self._now_ns + takes_ns, Turn.ROBOT, 2 * robot.number + 1, call)

    def _mend(self, robot: _Robot) -> None:
        self._ledger.robot_is_mended(robot.number, self._now_ns)
        robot.broken = False
        robot.times += 1
        self._wear(robot)
        self._crew += 1
        self._repair_next()
        job = robot.job
        if job is not None and self._scenario.queue.discipline != "preemptive":
            self._begin(job, robot)
            return
        if job is not None:  # who is more urgent goes first
            self._ledger.turns(job.number, Cell.WAITING, self._now_ns)
            self._wait(job, fresh=False)
        self._find_job(robot)


def served_ns(work_ns: int, speed: float) -> int:
    """How long a robot of that speed needs."""
    return work_ns if speed == 1 else round(min(work_ns / NANO / speed * NANO, LONGEST))
