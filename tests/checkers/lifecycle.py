"""Holds the history of each job against the transition table, over all orders of overlapping calls.

A search for one order in which every answer is right (Wing and Gong 1993, "Testing and verifying concurrent
objects", with the memory of Lowe 2017, "Testing for linearizability"): it goes from answer to answer, and
between them lets calls take effect that are still open, and the server act by itself, no more than needed.
A place once visited (answers passed, open calls that took effect, the job's state) is not visited again
unless earlier in time. A legal history costs about one place an operation. The cost grows as 2^k with k calls
on one job that overlap: beyond `Bounds.max_states` places the job is reported as `undecided`.
"""

from __future__ import annotations

from checkers.history import NEVER, Evidence, Op
from checkers.job_model import Bounds, JobModel, Point, State, Times
from checkers.job_steps import Step
from checkers.traces import Trace, Traces
from checkers.violation import Violation, answer_of

SHOWN = 15  # operations in a violation
Place = tuple[int, State, Times, int]  # answers passed, the job, the times, answers ahead that took effect


def check(evidence: Evidence, bounds: Bounds | None = None) -> list[Violation]:
    """One violation at most for each job, by rule `lifecycle` or `undecided`."""
    bounds = bounds or Bounds()
    traces = Traces(evidence)
    found = (_Search(traces.model(trace, bounds), trace).run(bounds) for trace in traces.jobs.values())
    return [violation for violation in found if violation is not None]


class _Search:
    def __init__(self, model: JobModel, trace: Trace) -> None:
        self._model = model
        self._trace = trace
        self._answered = sorted((s for s in trace.steps if s.ended_ns != NEVER), key=lambda s: s.ended_ns)
        self._unanswered = [s for s in trace.steps if s.ended_ns == NEVER]
        self._visited: dict[tuple[int, State, int], list[Times]] = {}
        self._furthest = 0
        self._reached: dict[State, None] = {}

    def run(self, bounds: Bounds) -> Violation | None:
        """First the shortest way, from answer to answer; other ways only from where it fails."""
        stack: list[tuple[Place, bool]] = [((0, State(), Times(), 0), False)]
        places = 0
        while stack:
            place, elsewhere = stack.pop()
            if elsewhere:
                stack += [(other, False) for other in self._other_ways(place)]
                continue
            if (arrived := self._arrive(place)) is None:
                continue
            if self._is_end(arrived):
                return None
            places += 1
            if places > bounds.max_states:
                return self._undecided(places)
            stack.append((arrived, True))
            if straight := self._answer_next(arrived):
                stack.append((straight, False))
        return self._impossible()

    def _arrive(self, place: Place) -> Place | None:
        """Passes the answers of steps that took effect already. None where this was tried before."""
        passed, state, times, effective = place
        while effective >> passed & 1:
            effective ^= 1 << passed
            passed += 1
        before = self._visited.setdefault((passed, state, effective), [])
        if any(earlier.no_later(times) for earlier in before):
            return None
        before.append(times)
        if passed > self._furthest:
            self._furthest = passed
            self._reached = {}
        if passed == self._furthest:
            self._reached[state] = None
        return passed, state, times, effective

    def _is_end(self, place: Place) -> bool:
        final = self._trace.final
        at_end = place[0] == len(self._answered)
        return at_end and (final is None or self._model.ends_as(place[1], final))

    def _answer_next(self, place: Place) -> Place | None:
        at_end = place[0] == len(self._answered)
        return None if at_end else self._answer(place, place[0])

    def _answer(self, place: Place, number: int) -> Place | None:
        passed, state, times, effective = place
        point = self._take(self._answered[number], state, times)
        return None if point is None else (passed, *point, effective | 1 << number)

    def _take(self, step: Step, state: State, times: Times) -> Point | None:
        if step.invoked_ns > times.now:
            times = Times(step.invoked_ns, times.lease, times.stop, times.alarm)
        return step.take(self._model, state, times)

    def _other_ways(self, place: Place) -> list[Place]:
        """The same answer is still ahead: the server acts by itself, or a call that is open takes effect.
        What nobody answered needs no memory: where it took effect, the table does not admit it again."""
        passed, state, times, effective = place
        ahead = self._answered[passed:]
        until_ns = ahead[0].ended_ns if ahead else NEVER
        points = list(self._model.unasked(state, times, until_ns))
        for step in self._unanswered:
            if step.invoked_ns <= until_ns and (point := self._take(step, state, times)):
                points.append(point)
        places: list[Place | None] = [(passed, *point, effective) for point in points]
        for number, step in enumerate(ahead[1:], passed + 1):
            if step.invoked_ns <= until_ns and not effective >> number & 1:
                places.append(self._answer(place, number))
        return [other for other in places if other]

    # -- the report

    def _undecided(self, places: int) -> Violation:
        detail = f"undecided after {places} places: too many calls overlap, or answers are unknown"
        return Violation("undecided", self._trace.job_id, detail, self._shown(NEVER))

    def _impossible(self) -> Violation:
        states = "; or ".join(str(state) for state in list(self._reached)[:6])
        if self._furthest < len(self._answered):
            step = self._answered[self._furthest]
            what, until_ns = f"no order of the calls explains {_name(step)}", step.ended_ns
        else:
            what, until_ns = f"no order of the calls leads to the final state {_final(self._trace)}", NEVER
        detail = f"{what}; the job could be: {states}"
        return Violation("lifecycle", self._trace.job_id, detail, self._shown(until_ns))

    def _shown(self, until_ns: int) -> list[Op]:
        """The newest operations that count."""
        ops = sorted(self._trace.ops, key=lambda op: op.invoked_ns)
        return [op for op in ops if op.invoked_ns <= until_ns][-SHOWN:]


def _name(step: Step) -> str:
    op = step.op
    assert op is not None
    call = getattr(op.call, "event", type(op.call).__name__.lower())
    return f"{call} of {op.process} -> {answer_of(op)} at {op.ended_ns / 1e9:.3f}"


def _final(trace: Trace) -> str:
    final = trace.final
    assert final is not None
    path = "" if final.changes is None else " by " + ", ".join(change.status for change in final.changes)
    return f"{final.status}, attempt {final.attempt}{path}"
