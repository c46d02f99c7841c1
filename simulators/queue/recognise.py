"""Which queue of the textbooks a scenario is, if it is one."""

from __future__ import annotations

from collections.abc import Callable
from math import fsum

import msgspec

from fleet.errors import Misuse
from simulators.distributions import Constant, Distribution, Exponential
from simulators.queue import theory
from simulators.queue.arrays import can, slots_of
from simulators.queue.moments import mixed, moments_of, transform_of
from simulators.queue.theory import Moments, Steady
from simulators.scenario import (
    BatchArrivals,
    Breakdowns,
    ClosedArrivals,
    ConstantArrivals,
    Discouraged,
    Fleet,
    JobClass,
    Jobs,
    PoissonArrivals,
    Queue,
    RenewalArrivals,
    RobotFault,
    Scenario,
)

Figures = dict[str, float]
FIGURES = ("utilisation", "L", "Lq", "W", "Wq", "throughput", "P_wait", "P_block", "P_balk", "P_abandon")


class Line(msgspec.Struct, frozen=True):
    """M/M/c, first come first served: of its times the whole distribution is known."""

    rate: float
    service_rate: float
    servers: int


class Known(msgspec.Struct, frozen=True):
    """`model` in Kendall's notation; `exact` False for an approximation. `figures` are by the names of
    metrics, `classes` the same of each class that differs. `line`: if it is one."""

    model: str
    figures: Figures
    exact: bool = True
    classes: dict[str, Figures] = {}
    line: Line | None = None


class _Model(msgspec.Struct, frozen=True):
    """What the textbooks ask of a scenario. `order`: "fifo", "lifo", "random", "priority" or "preemptive".
    `gap`: from one arrival to the next, None if they are not independent. `mean` is that of all service
    times if these are exponential and alike, else None."""

    jobs: Jobs
    queue: Queue
    servers: int
    speed: float
    order: str
    gap: Distribution | None
    service: Moments
    mean: float | None
    patience: Distribution | None
    breakdowns: Breakdowns | None

    @property
    def rate(self) -> float:
        assert self.gap is not None
        return 1 / self.gap.mean_s

    @property
    def poisson(self) -> bool:
        return isinstance(self.gap, Exponential)

    @property
    def open_to_all(self) -> bool:
        """Nobody is turned away, and nobody gives up."""
        return self.queue.capacity is None and self.queue.balking is None and self.patience is None


def recognised(scenario: Scenario) -> Known | None:
    """None for a queue that nobody has solved, or that is not settled: one whose rate changes. Raises Misuse
    for one that grows for ever."""
    model = _model_of(scenario)
    if model is None:
        return None
    for find in (_closed, _birth_and_death, _insensitive, _broken, _priorities, _batches, _plain, _about):
        if (known := find(model)) is not None:
            return known
    return None


def _model_of(scenario: Scenario) -> _Model | None:
    jobs, fleets = scenario.jobs, list(scenario.fleets.values())
    if jobs is None or scenario.faults or not _steady(scenario) or not _alike(fleets):
        return None
    classes = list(jobs.classes.values())
    order = _order(scenario.queue, classes)
    if order is None or not all(can(fleet, each) for fleet in fleets for each in classes):
        return None
    if any(each.timeout is not None or each.patience != classes[0].patience for each in classes):
        return None
    speed = fleets[0].speed
    service = _service(classes, speed)
    memoryless = all(isinstance(each.service, Exponential) for each in classes) and (
        len({each.service.mean_s for each in classes}) == 1
    )
    if service.mean == 0:
        return None
    return _Model(
        jobs=jobs,
        queue=scenario.queue,
        servers=slots_of(scenario),
        speed=speed,
        order=order,
        gap=_gap(jobs),
        service=service,
        mean=service.mean if memoryless else None,
        patience=classes[0].patience,
        breakdowns=fleets[0].breakdowns,
    )


def _steady(scenario: Scenario) -> bool:
    load = scenario.load
    return len(load) == 1 and load[0].load == load[0].load_after == 1.0


def _alike(fleets: list[Fleet]) -> bool:
    """For whoever gives a job away."""
    traits = {(fleet.speed, fleet.environment, repr(fleet.breakdowns)) for fleet in fleets}
    beats = all(fleet.heartbeats.loss == 0 for fleet in fleets)
    return len(traits) == 1 and beats and all(fleet.failure_probability == 0 for fleet in fleets)


def _order(queue: Queue, classes: list[JobClass]) -> str | None:
    """None for priorities that grow with waiting."""
    alike = len({each.priority for each in classes}) == 1
    if queue.discipline in ("fifo", "lifo", "random"):
        return queue.discipline
    if alike or queue.aging == 0:
        return "fifo"
    return queue.discipline if queue.discipline != "production" else None


def _service(classes: list[JobClass], speed: float) -> Moments:
    weight = fsum(each.weight for each in classes)
    shares = [each.weight / weight for each in classes]
    return mixed(shares, [moments_of(each.service, speed) for each in classes])


def _gap(jobs: Jobs) -> Distribution | None:
    match jobs.arrivals:
        case PoissonArrivals(rate=rate) | BatchArrivals(rate=rate):
            return Exponential.model_construct(kind="exponential", mean=1 / rate)
        case ConstantArrivals(rate=rate):
            return Constant.model_construct(kind="constant", value=1 / rate)
        case RenewalArrivals(between=between):
            return between
        case _:
            return None


# -- one model after the other; each says None of what is not its own


def _closed(model: _Model) -> Known | None:
    arrivals = model.jobs.arrivals
    if not isinstance(arrivals, ClosedArrivals):
        return None
    fits = isinstance(arrivals.think, Exponential) and model.mean is not None and model.open_to_all
    if not fits or model.breakdowns is not None or model.order not in ("fifo", "lifo", "random"):
        return None
    assert model.mean is not None
    found = theory.machine_repair(arrivals.users, 1 / arrivals.think.mean_s, 1 / model.mean, model.servers)
    return _of(f"M/M/{model.servers}//{arrivals.users}", found)


def _birth_and_death(model: _Model) -> Known | None:
    """Whoever is turned away or gives up; everything is exponential."""
    queue, patience = model.queue, model.patience
    memoryless = model.mean is not None and (patience is None or isinstance(patience, Exponential))
    if model.open_to_all or not memoryless or not _single_poisson(model) or model.breakdowns is not None:
        return None
    if model.order not in ("fifo", "lifo", "random") or (queue.capacity or model.servers) < model.servers:
        return None
    assert model.mean is not None
    joins = _joins(queue)
    if joins is not None and joins(0) == 0:
        return None  # nobody ever comes in
    if joins is not None and queue.capacity is None and patience is None:
        theory.check_tail(model.rate * joins(theory.MOST_STATES), 1 / model.mean, model.servers)
    abandon_rate = 0.0 if patience is None else 1 / patience.mean_s
    found = theory.mmck(model.rate, 1 / model.mean, model.servers, queue.capacity, abandon_rate, joins)
    room = "" if queue.capacity is None else f"/{queue.capacity}"
    name = f"M/M/{model.servers}{room}{'' if patience is None else '+M'}"
    known = _of(name + ("" if queue.balking is None else ", with balking"), found)
    if patience is not None:
        del known.figures["W"]  # here it is of those that were served only
    return known


def _joins(queue: Queue) -> Callable[[int], float] | None:
    balking = queue.balking
    if balking is None:
        return None
    if isinstance(balking, Discouraged):
        return lambda there: 1 / (there + 1)
    shares = balking.probabilities
    return lambda there: shares[min(there, len(shares) - 1)]


def _single_poisson(model: _Model) -> bool:
    return isinstance(model.jobs.arrivals, PoissonArrivals) or (
        isinstance(model.jobs.arrivals, RenewalArrivals) and model.poisson
    )


def _insensitive(model: _Model) -> Known | None:
    """Nobody waits: only the mean of the service time counts. Erlang (1917), Sevastyanov (1957)."""
    queue = model.queue
    lossy = queue.capacity == model.servers and queue.balking is None
    if not lossy or not _single_poisson(model) or model.breakdowns is not None:
        return None
    if model.order == "preemptive":
        return None
    found = theory.mmck(model.rate, 1 / model.service.mean, model.servers, queue.capacity)
    return _of(f"M/G/{model.servers}/{model.servers}", found)


def _broken(model: _Model) -> Known | None:
    """A robot that breaks only while it works, after exponential times, and goes on where it was."""
    breakdowns = model.breakdowns
    if breakdowns is None:
        return None
    plain = model.open_to_all and _single_poisson(model) and model.servers == 1 and model.order == "fifo"
    resumes = breakdowns.counts == "working" and breakdowns.job == "resumes"
    if not plain or not resumes or not isinstance(breakdowns.up, Exponential):
        return None
    longer = theory.interrupted(model.service, 1 / breakdowns.up.mean_s, moments_of(breakdowns.repair))
    known = _of("M/G/1 with breakdowns", theory.mg1(model.rate, longer))
    known.figures["utilisation"] = model.rate * model.service.mean
    return known


def _priorities(model: _Model) -> Known | None:
    if model.order not in ("priority", "preemptive") or not _simple(model) or not _single_poisson(model):
        return None
    levels = sorted({each.priority for each in model.jobs.classes.values()})
    of_level = [[each for each in model.jobs.classes.values() if each.priority == level] for level in levels]
    weight = fsum(each.weight for each in model.jobs.classes.values())
    rates = [model.rate * fsum(each.weight for each in classes) / weight for classes in of_level]
    services = [_service(classes, model.speed) for classes in of_level]
    above = [0.0] * len(levels)  # the load of those that interrupt, of each level
    if model.servers == 1 and model.order == "preemptive":
        stays = theory.preemptive(rates, services)
        loads = [rate * service.mean for rate, service in zip(rates, services, strict=True)]
        above = [fsum(loads[:place]) for place in range(len(levels))]
        # But for what is lost to interruptions, which hangs on a job's own service.
        waits = [
            stay - service.mean / (1 - load)
            for stay, service, load in zip(stays, services, above, strict=True)
        ]
    elif model.servers == 1:
        waits = theory.cobham(rates, services)
    elif model.mean is not None and model.order == "priority":
        waits = theory.cobham_mmc(rates, 1 / model.mean, model.servers)
    else:
        return None
    interrupted = [service.mean * load / (1 - load) for service, load in zip(services, above, strict=True)]
    wq = (
        fsum(rate * (wait + lost) for rate, wait, lost in zip(rates, waits, interrupted, strict=True))
        / model.rate
    )
    load = model.rate * model.service.mean / model.servers
    w = wq + model.service.mean
    figures = Steady(load, model.rate * w, model.rate * wq, w, wq, model.rate)
    kind = "M" if model.mean is not None else "G"
    how = "that interrupt" if model.order == "preemptive" else "that do not interrupt"
    known = _of(f"M/{kind}/{model.servers} with priorities {how}", figures)
    classes = {
        name: {"Wq": wait + own * load / (1 - load), "W": wait + own / (1 - load)}
        for name, each in model.jobs.classes.items()
        for wait, load in [(waits[levels.index(each.priority)], above[levels.index(each.priority)])]
        for own in [moments_of(each.service, model.speed).mean]
    }
    return msgspec.structs.replace(known, classes=classes)


def _simple(model: _Model) -> bool:
    return model.open_to_all and model.breakdowns is None and model.gap is not None


def _batches(model: _Model) -> Known | None:
    arrivals = model.jobs.arrivals
    if not isinstance(arrivals, BatchArrivals):
        return None
    if not _simple(model) or model.mean is None or model.servers > 1 or model.order in ("preemptive",):
        return None
    sizes = range(arrivals.smallest, arrivals.largest + 1)
    mean, second = fsum(sizes) / len(sizes), fsum(size**2 for size in sizes) / len(sizes)
    return _of("M^X/M/1", theory.batches_mm1(arrivals.rate, mean, second, 1 / model.mean))


def _plain(model: _Model) -> Known | None:
    """Whoever comes waits until it is served. The order changes how waits differ, and not their mean."""
    if not _simple(model) or model.order not in ("fifo", "lifo", "random"):
        return None
    if isinstance(model.jobs.arrivals, BatchArrivals):
        return None
    assert model.gap is not None
    if model.poisson and model.mean is not None:
        found = theory.mmc(model.rate, 1 / model.mean, model.servers)
        more = _quantiles(model) if model.order == "fifo" else {}
        if model.servers == 1:
            more["Wq_squared"] = theory.mg1_wait_second(model.rate, model.service, model.order)
        line = Line(model.rate, 1 / model.mean, model.servers) if model.order == "fifo" else None
        return msgspec.structs.replace(_of(f"M/M/{model.servers}", found, more), line=line)
    if model.poisson and model.servers == 1:
        second = theory.mg1_wait_second(model.rate, model.service, model.order)
        return _of("M/G/1", theory.mg1(model.rate, model.service), {"Wq_squared": second})
    transform = transform_of(model.gap)
    if transform is not None and model.mean is not None and model.servers == 1:
        return _of("GI/M/1", theory.gm1(transform, model.rate, 1 / model.mean))
    return None


def _about(model: _Model) -> Known | None:
    if not _simple(model) or model.order not in ("fifo", "lifo", "random"):
        return None
    if isinstance(model.jobs.arrivals, BatchArrivals):
        return None
    assert model.gap is not None
    scv = moments_of(model.gap).scv
    wq = theory.allen_cunneen(model.rate, scv, model.service, model.servers)
    w = wq + model.service.mean
    figures = {"Wq": wq, "W": w, "Lq": model.rate * wq, "L": model.rate * w}
    kind = "M" if model.poisson else "G"
    name = "Kingman" if model.servers == 1 else "Allen and Cunneen"
    return Known(f"{kind}/G/{model.servers}, by {name}", figures, exact=False)


def _of(model: str, found: Steady, more: Figures | None = None) -> Known:
    figures = {name: value for name in FIGURES if (value := getattr(found, name)) is not None}
    return Known(model, figures | (more or {}))


def _quantiles(model: _Model) -> Figures:
    assert model.mean is not None
    return {
        f"Wq_p{percent}": theory.mmc_wait_quantile(model.rate, 1 / model.mean, model.servers, percent / 100)
        for percent in (50, 95, 99)
    }


def check(scenario: Scenario) -> None:
    """What cannot be played in virtual time. Raises Misuse."""
    if scenario.jobs is None:
        raise Misuse(f"the scenario {scenario.name} has no jobs: there is no queue to look at")
    if not scenario.fleets:
        raise Misuse(f"the scenario {scenario.name} has no fleets: nobody would do the jobs")
    if any(not isinstance(fault, RobotFault) for fault in scenario.faults):
        raise Misuse("in virtual time only robots are killed: leave other faults out, or use fleetcast load")
    for name, each in scenario.jobs.classes.items():
        if not any(can(fleet, each) for fleet in scenario.fleets.values()):
            raise Misuse(f"jobs.classes.{name}: no robot of this scenario can do such a job")
