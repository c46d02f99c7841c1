"""Queues whose figures are known: what the lab is held against.

Units of time are seconds. Where a formula exists its source is named; the figures are those of the source or
the formula, to the digits given.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from fleet.errors import Misuse
from simulators.queue import lab
from simulators.queue.lab import Metric
from simulators.queue.statistics import Interval
from simulators.scenario import Scenario

BEYOND = 4.5  # standard errors
REPLICATIONS = 20

Part = dict[str, Any]
H2 = [0.8872983346207417, 0.1127016653792583]  # of mean 1 and scv 4, with balanced means


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """`expected`: by metric, or by class and metric ("a.W"). `tolerance`: how far an estimate may be from
    it, relatively. `lasts_s`: of each of twenty replications."""

    name: str
    what: str
    source: str
    jobs: Part
    expected: dict[str, float]
    tolerance: float
    lasts_s: float
    robots: int = 1
    fleet: Part = {}
    queue: Part = {}
    repair_crew: int | None = None

    def scenario(self, seed: int) -> Scenario:
        written: Part = {
            "name": self.name.lower(),
            # Of its own: cases that met the same random numbers would be wrong together.
            "seed": seed * 2**32 + zlib.crc32(self.name.encode()),
            "duration": f"{self.lasts_s:.0f}s",
            "fleets": {
                "robots": {"count": self.robots, "heartbeats": {"interval": "60s"}} | self.fleet,
            },
            "queue": self.queue,
            "jobs": self.jobs,
        }
        if self.repair_crew is not None:
            written["repair_crew"] = self.repair_crew
        return Scenario.model_validate(written)


class Checked(msgspec.Struct, frozen=True):
    """One figure of a case."""

    case: Case
    metric: str
    expected: float
    found: Metric

    @property
    def z(self) -> float:
        width = (self.found.high - self.found.low) / 2
        error = width / T_95
        return Interval(self.found.estimate, self.found.low, self.found.high, error).z(self.expected)

    @property
    def wide(self) -> float:
        """The interval to one side, relatively."""
        return (self.found.high - self.found.low) / 2 / self.expected

    @property
    def off(self) -> float:
        """Relatively."""
        return abs(self.found.estimate / self.expected - 1)

    @property
    def holds(self) -> bool:
        return abs(self.z) < BEYOND and self.off <= self.case.tolerance


T_95 = 2.093024054  # Student's t with 19 degrees of freedom: half the width of an interval in standard errors


def checked(case: Case, seed: int = 1) -> list[Checked]:
    """Raises Misuse for a figure that the lab does not have."""
    found = lab.run(case.scenario(seed), Path(), REPLICATIONS)
    figures = found.metrics | {
        f"{name}.{metric}": figure for name, each in found.classes.items() for metric, figure in each.items()
    }
    missing = set(case.expected) - set(figures)
    if missing:
        raise Misuse(f"{case.name}: there is no figure for {', '.join(sorted(missing))}")
    return [Checked(case, name, value, figures[name]) for name, value in case.expected.items()]


# -- how they are written


def seconds(value: float) -> str:
    """As a scenario has it; in nanoseconds it is what it was."""
    return f"{value:.9f}s"


def exponential(mean: float) -> Part:
    return {"kind": "exponential", "mean": seconds(mean)}


def constant(value: float) -> Part:
    return {"kind": "constant", "value": seconds(value)}


def erlang(phases: int, mean: float) -> Part:
    return {"kind": "erlang", "phases": phases, "mean": seconds(mean)}


def hyperexponential(mean: float) -> Part:
    """Of scv 4."""
    means = [seconds(mean / (2 * share)) for share in H2]
    return {"kind": "hyperexponential", "means": means, "probabilities": H2}


def poisson(rate: float, service: Part, **more: Any) -> Part:
    arrivals = {"kind": "poisson", "rate": rate}
    return {"arrivals": arrivals, "classes": {"all": {"service": service} | more}}


def renewal(between: Part, service: Part) -> Part:
    return {"arrivals": {"kind": "renewal", "between": between}, "classes": {"all": {"service": service}}}


def classes(rates: list[float], services: list[Part], **more: Any) -> Part:
    """The first is the most urgent: a, b, c."""
    return {
        "arrivals": {"kind": "poisson", "rate": sum(rates)},
        "classes": {
            "abc"[place]: {"service": service, "weight": rate, "priority": place} | more
            for place, (rate, service) in enumerate(zip(rates, services, strict=True))
        },
    }


ONE = exponential(1.0)
NO_BACKOFF = {"base": "0s", "most": "0s"}


def _loss(name: str, service: Part) -> Case:
    return Case(
        name=f"MGCC-INSENS-{name}",
        what=f"M/G/10/10, {name} service",
        source="Sevastyanov (1957): only the mean counts",
        jobs=poisson(5.0, service),
        robots=10,
        queue={"capacity": 10},
        expected={"P_block": 0.01838457034},
        tolerance=0.05,
        lasts_s=8_000,
    )


def _order(name: str, second: float, lasts_s: float) -> Case:
    return Case(
        name=f"MM1-ORDER-VAR-{name}",
        what=f"M/M/1 at 0.8, {name}",
        source="Takacs (1963), Fuhrmann (1985)",
        jobs=poisson(0.8, ONE),
        queue={"discipline": name},
        expected={"Wq": 4.0, "Wq_squared": second},
        tolerance=0.08,
        lasts_s=lasts_s,
    )


def _priorities(name: str, discipline: str, expected: list[float], metric: str, **more: Any) -> Case:
    return Case(
        name=name,
        queue={"discipline": discipline},
        expected={f"{'abc'[place]}.{metric}": value for place, value in enumerate(expected)},
        **more,
    )


ER1 = classes([0.2, 0.6, 1.2], [exponential(1 / 3)] * 3)
MG1 = classes([0.3, 0.2, 0.1], [constant(0.5), exponential(1.0), hyperexponential(3.0)])

CASES = [
    Case(
        name="MM1-075",
        what="M/M/1 at 0.75",
        source="Kleinrock I (1975), 3.2",
        jobs=poisson(0.75, ONE),
        expected={
            "utilisation": 0.75, "L": 3.0, "Lq": 2.25, "W": 4.0, "Wq": 3.0, "P_wait": 0.75,
            "W_p50": 2.772588722, "W_p95": 11.98292909, "W_p99": 18.42068074,
            "Wq_p95": 10.8322008, "Wq_p99": 17.26995245,
        },
        tolerance=0.02,
        lasts_s=270_000,
    ),
    Case(
        name="MM3-CIW",
        what="M/M/3 at 0.667",
        source="Erlang C; the example of Ciw's documentation",
        jobs=poisson(0.2, exponential(10.0)),
        robots=3,
        expected={
            "utilisation": 0.6666666667, "P_wait": 0.4444444444, "Wq": 4.444444444, "W": 14.44444444,
            "Lq": 0.8888888889, "L": 2.888888889, "Wq_p95": 21.84802057, "Wq_p99": 37.9423997,
        },
        tolerance=0.03,
        lasts_s=360_000,
    ),
    Case(
        name="MM10-8",
        what="M/M/10 at 0.8",
        source="Erlang C",
        jobs=poisson(8.0, ONE),
        robots=10,
        expected={
            "utilisation": 0.8, "P_wait": 0.4091801508, "Wq": 0.2045900754, "W": 1.204590075,
            "Lq": 1.636720603, "L": 9.636720603, "Wq_p95": 1.05106626, "Wq_p99": 1.855785216,
        },
        tolerance=0.03,
        lasts_s=40_000,
    ),
    Case(
        name="ERLB-10-5",
        what="M/M/10/10, 5 Erlang",
        source="Erlang B (1917)",
        jobs=poisson(5.0, ONE),
        robots=10,
        queue={"capacity": 10},
        expected={"P_block": 0.01838457034, "utilisation": 0.4908077148},
        tolerance=0.05,
        lasts_s=5_000,
    ),
    _loss("constant", constant(1.0)),
    _loss("lognormal", {"kind": "lognormal", "mean": "1s", "scv": 4.0}),
    _loss("exponential", ONE),
    Case(
        name="MM23-SIMMER",
        what="M/M/2/3",
        source="Kleinrock I (1975), 3.6; the example of simmer's documentation",
        jobs=poisson(3.0, exponential(0.25)),
        robots=2,
        queue={"capacity": 3},
        expected={
            "P_block": 0.04936014625, "L": 0.7623400366, "Lq": 0.04936014625, "W": 0.2673076923,
            "Wq": 0.01730769231, "throughput": 2.851919561, "utilisation": 0.3564899452,
        },
        tolerance=0.03,
        lasts_s=12_000,
    ),
    Case(
        name="MM4K20",
        what="M/M/4/20 at 0.95",
        source="birth and death",
        jobs=poisson(3.8, ONE),
        robots=4,
        queue={"capacity": 20},
        expected={
            "P_block": 0.03127291868, "L": 9.291143263, "Lq": 5.609980354, "W": 2.523969597,
            "Wq": 1.523969597, "throughput": 3.681162909, "utilisation": 0.9202907273,
        },
        tolerance=0.04,
        lasts_s=28_000,
    ),
    Case(
        name="GAS-SIMMER",
        what="M/M/1/1, two classes",
        source="balance of flow; the gas station of simmer's documentation",
        jobs=classes([0.1125, 0.0375], [exponential(8.0), exponential(3.0)]),
        queue={"capacity": 1, "discipline": "fifo"},
        expected={"L": 0.5031055901, "P_block": 0.5031055901},
        tolerance=0.03,
        lasts_s=62_000,
    ),
    Case(
        name="ERLA-CALLCENTER",
        what="M/M/50+M, 48 calls a unit",
        source="Erlang A: Gans, Koole and Mandelbaum (2003)",
        jobs=poisson(48.0, ONE, patience=exponential(2.0)),
        robots=50,
        expected={
            "P_abandon": 0.03091224916, "Wq": 0.06182449832, "Lq": 2.96757592,
            "utilisation": 0.9303242408, "P_wait": 0.4677740686,
        },
        tolerance=0.05,
        lasts_s=1_400,
    ),
    Case(
        name="ERLC-CALLCENTER",
        what="M/M/50 at 0.96",
        source="Erlang C: Gans, Koole and Mandelbaum (2003)",
        jobs=poisson(48.0, ONE),
        robots=50,
        expected={"Wq": 20.83366834 / 60, "Lq": 16.66693467, "utilisation": 0.96, "P_wait": 0.6944556112},
        tolerance=0.06,
        lasts_s=10_000,
    ),
    Case(
        name="MMCK-M",
        what="M/M/5/12+M, overloaded",
        source="Ancker and Gafarian (1963)",
        jobs=poisson(5.0, ONE, patience=exponential(3.0)),
        robots=5,
        queue={"capacity": 12},
        expected={
            "P_abandon": 0.1081686234, "P_block": 0.0268362075, "Lq": 1.622529351, "L": 5.947505196,
            "utilisation": 0.8649951691, "throughput": 4.324975845,
        },
        tolerance=0.04,
        lasts_s=5_800,
    ),
    Case(
        name="BALK-DISCOURAGED",
        what="M/M/1, joins with 1 / (n + 1)",
        source="Kleinrock I (1975), 3.3",
        jobs=poisson(2.0, ONE),
        queue={"balking": {"kind": "discouraged"}},
        expected={"L": 2.0, "throughput": 0.8646647168, "P_balk": 0.5676676416, "W": 2.313035285},
        tolerance=0.03,
        lasts_s=12_000,
    ),
    Case(
        name="REPAIR-10-1",
        what="M/M/1//10: machines as users who come to be mended",
        source="Palm (1947)",
        jobs={
            "arrivals": {"kind": "closed", "users": 10, "think": exponential(20.0)},
            "classes": {"all": {"service": exponential(1.5)}},
        },
        expected={
            "L": 1.380886263, "W": 3.204241886, "Wq": 1.704241886, "throughput": 0.4309556869,
            "utilisation": 0.6464335303,
        },
        tolerance=0.03,
        lasts_s=50_000,
    ),
    Case(
        name="REPAIR-10-1-robots",
        what="the same: ten robots that break, and one who mends them",
        source="Palm (1947)",
        jobs=poisson(0.001, ONE),
        robots=10,
        fleet={"breakdowns": {"up": exponential(20.0), "repair": exponential(1.5)}},
        repair_crew=1,
        expected={"availability": 0.8619113737},
        tolerance=0.03,
        lasts_s=12_000,
    ),
    Case(
        name="MD1-080",
        what="M/D/1 at 0.8",
        source="Pollaczek (1930), Khinchine (1932)",
        jobs=poisson(0.8, constant(1.0)),
        expected={
            "utilisation": 0.8, "Wq": 2.0, "W": 3.0, "Lq": 1.6, "L": 2.4,
            "Wq_squared": 5.333333333 + 4.0, "W_squared": 5.333333333 + 9.0,
        },
        tolerance=0.02,
        lasts_s=420_000,
    ),
    Case(
        name="ME4-1",
        what="M/E4/1 at 0.85",
        source="Pollaczek (1930), Khinchine (1932)",
        jobs=poisson(0.85, erlang(4, 1.0)),
        expected={
            "utilisation": 0.85, "Wq": 3.541666667, "W": 4.541666667, "Lq": 3.010416667, "L": 3.860416667,
            "Wq_squared": 16.08506944 + 3.541666667**2, "W_squared": 16.33506944 + 4.541666667**2,
        },
        tolerance=0.03,
        lasts_s=380_000,
    ),
    Case(
        name="MH2-1",
        what="M/H2/1 at 0.7, scv 4",
        source="Pollaczek (1930), Khinchine (1932)",
        jobs=poisson(0.7, hyperexponential(1.0)),
        expected={
            "utilisation": 0.7, "Wq": 5.833333333, "W": 6.833333333, "Lq": 4.083333333, "L": 4.783333333,
            "Wq_squared": 80.69444444 + 5.833333333**2, "W_squared": 84.69444444 + 6.833333333**2,
        },
        tolerance=0.05,
        lasts_s=160_000,
    ),
    Case(
        name="DM1",
        what="D/M/1 at 0.8",
        source="Kleinrock I (1975), 6.4",
        jobs=renewal(constant(1.25), ONE),
        expected={
            "P_wait": 0.6286297965, "Wq": 1.69273084, "W": 2.69273084, "L": 2.154184672,
            "utilisation": 0.8, "Wq_p95": 6.816700681,
        },
        tolerance=0.03,
        lasts_s=75_000,
    ),
    Case(
        name="H2M1",
        what="H2/M/1 at 0.8, scv 4",
        source="Kleinrock I (1975), 6.4",
        jobs=renewal(hyperexponential(1.25), ONE),
        expected={
            "P_wait": 0.9075716626, "Wq": 9.819192772, "W": 10.81919277, "L": 8.655354218,
            "utilisation": 0.8, "Wq_p95": 31.3621299,
        },
        tolerance=0.05,
        lasts_s=150_000,
    ),
    Case(
        name="E2E2-1",
        what="E2/E2/1 at 0.8",
        source="spectral solution of Lindley's equation",
        jobs=renewal(erlang(2, 1.25), erlang(2, 1.0)),
        expected={"Wq": 1.865268048, "L": 2.292214438},
        tolerance=0.03,
        lasts_s=50_000,
    ),
    Case(
        name="MD5",
        what="M/D/5 at 0.9",
        source="Crommelin (1932)",
        jobs=poisson(4.5, constant(1.0)),
        robots=5,
        expected={"Lq": 3.495128212, "Wq": 0.7766951582, "L": 7.995128212, "P_wait": 0.7478285461},
        tolerance=0.04,
        lasts_s=23_000,
    ),
    _priorities(
        "PRIO-NP-ER1", "priority", [0.2380952381, 0.3246753247, 0.9090909091], "Wq",
        what="M/M/1, three classes, nobody is interrupted", source="Cobham (1954)", jobs=ER1,
        tolerance=0.03, lasts_s=25_000,
    ),
    _priorities(
        "PRIO-PR-ER1", "preemptive", [0.3571428571, 0.487012987, 1.363636364], "W",
        what="M/M/1, three classes, preemptive-resume", source="Kleinrock II (1976), 3.7", jobs=ER1,
        tolerance=0.03, lasts_s=25_000,
    ),
    _priorities(
        "PRIO-CIW", "priority", [2.0, 6.0], "W",
        what="M/M/1, two classes, nobody is interrupted", source="Cobham (1954); the example of Ciw",
        jobs=classes([0.2, 0.6], [ONE, ONE]), tolerance=0.03, lasts_s=60_000,
    ),
    _priorities(
        "PRIO-NP-MG1", "priority", [2.926470588, 4.502262443, 10.93406593], "Wq",
        what="M/G/1, three classes, nobody is interrupted", source="Cobham (1954)", jobs=MG1,
        tolerance=0.05, lasts_s=110_000,
    ),
    _priorities(
        "PRIO-PR-MG1", "preemptive", [0.5441176471, 1.606334842, 15.54945055], "W",
        what="M/G/1, three classes, preemptive-resume", source="Kleinrock II (1976), 3.7", jobs=MG1,
        tolerance=0.05, lasts_s=76_000,
    ),
    _order("fifo", 40.0, 100_000),
    _order("random", 66.66666667, 110_000),
    _order("lifo", 200.0, 170_000),
    Case(
        name="MM1-FAIL-ACTIVE",
        what="M/M/1, breaks only while it works, goes on where it was",
        source="Gaver (1962), Avi-Itzhak and Naor (1963)",
        jobs=poisson(0.6, ONE),
        fleet={"breakdowns": {"counts": "working", "up": exponential(10.0), "repair": exponential(1.5)}},
        expected={"W": 4.14516129, "L": 2.487096774, "utilisation": 0.6},
        tolerance=0.03,
        lasts_s=75_000,
    ),
    Case(
        name="FLEET-FAIL",
        what="five robots that break at any time, two who mend them; jobs go back to the head",
        source="a chain of jobs and robots, solved numerically",
        jobs=poisson(3.0, ONE),
        robots=5,
        fleet={"breakdowns": {"job": "head", "up": exponential(20.0), "repair": exponential(2.0)}},
        repair_crew=2,
        expected={"L": 3.894464501, "W": 1.298154834, "Lq": 0.8944645006, "availability": 4.535205604 / 5},
        tolerance=0.04,
        lasts_s=20_000,
    ),
    Case(
        name="MX-M1",
        what="M^5/M/1 at 0.75: five at a time",
        source="Gross and Harris, 3.1",
        jobs={
            "arrivals": {"kind": "batches", "rate": 0.15, "smallest": 5, "largest": 5},
            "classes": {"all": {"service": ONE}},
        },
        expected={"L": 9.0, "W": 12.0, "utilisation": 0.75},
        tolerance=0.03,
        lasts_s=90_000,
    ),
    Case(
        name="RETRY-BUDGET",
        what="M/M/1, a fifth of the attempts fail, three at most, to the tail without delay",
        source="Bernoulli feedback: Takacs (1963)",
        jobs=poisson(0.7, ONE, each_attempt="anew", max_attempts=3),
        fleet={"failure_probability": 0.2},
        queue={"discipline": "fifo", "backoff": NO_BACKOFF},
        expected={"P_dead_letter": 0.008, "utilisation": 0.868, "L": 6.575757576, "throughput": 0.6944},
        tolerance=0.03,
        lasts_s=170_000,
    ),
]  # fmt: skip


def all_checked(seed: int = 1, tell: Callable[[str], None] = lambda name: None) -> list[Checked]:
    """`tell` hears the name of each case that is played."""
    found = []
    for case in CASES:
        tell(case.name)
        found += checked(case, seed)
    return found
