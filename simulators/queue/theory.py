"""What is known of queues in the steady state: what simulations are held against.

Rates are per unit of time, times in that unit. A job arrives, waits (`Wq`), is served, leaves (`W` in all);
`Lq` and `L` are how many do so at a time. Raises Misuse for figures that are none, and for a queue that
grows for ever.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp, expm1, fsum, isfinite, isnan, log, nan

import msgspec

from fleet.errors import Misuse

PRECISION = 1e-13
MOST_STATES = 1_000_000


class Steady(msgspec.Struct, frozen=True):
    """Of those let in, but for `P_block`, `P_balk` and `P_abandon` (of all that came). `utilisation`
    is the share of the servers that are busy; `throughput` is of jobs that were served to their end. None is
    what was not asked for."""

    utilisation: float
    L: float
    Lq: float
    W: float
    Wq: float
    throughput: float
    P_wait: float | None = None
    P_block: float = 0.0
    P_balk: float = 0.0
    P_abandon: float = 0.0
    P_n: tuple[float, ...] = ()


class Moments(msgspec.Struct, frozen=True):
    """Of a service time: E[S], E[S^2] and E[S^3], which only the variance of waiting asks for: nan if
    unknown."""

    mean: float
    second: float
    third: float = nan

    @property
    def scv(self) -> float:
        """Squared coefficient of variation: variance over squared mean."""
        return self.second / self.mean**2 - 1


class Unstable(Misuse):
    """A queue that grows for ever has no steady state."""


def _positive(**figures: float) -> None:
    for name, value in figures.items():
        if not (isfinite(value) and value > 0):
            raise Misuse(f"{name} must be a number above 0, not {value:g}")


def _servers(servers: int) -> None:
    if servers < 1:
        raise Misuse(f"it takes one server at least, not {servers}")


def _load(rate: float, mean: float, servers: int) -> float:
    """Of each server; raises Misuse if they cannot keep up."""
    _positive(rate=rate, mean=mean)
    _servers(servers)
    load = rate * mean / servers
    if load >= 1:
        raise Unstable(
            f"the load is {load:g}: work arrives as fast as {servers} servers do it, and the queue grows for "
            "ever; it takes more servers, a capacity or patience"
        )
    return load


# -- Markovian queues


def erlang_b(servers: int, offered: float) -> float:
    """The share of calls that find all `servers` busy and leave, at `offered` = rate times mean service.
    Erlang (1917); by the recursion B_k = a B_{k-1} / (k + a B_{k-1}), which is good for any number of
    servers."""
    _servers(servers)
    _positive(offered=offered)
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = offered * blocked / (number + offered * blocked)
    return blocked


def erlang_c(servers: int, offered: float) -> float:
    """The share of jobs that wait in M/M/c. Erlang (1917); from B by C = B / (1 - rho (1 - B))."""
    load = _load(offered, 1.0, servers)
    blocked = erlang_b(servers, offered)
    return blocked / (1 - load * (1 - blocked))


def mmc(rate: float, service_rate: float, servers: int = 1) -> Steady:
    """M/M/c, first come first served. Kleinrock I (1975), section 3.5."""
    _positive(service_rate=service_rate)
    load = _load(rate, 1 / service_rate, servers)
    waits = erlang_c(servers, rate / service_rate)
    wq = waits / (servers * service_rate - rate)
    w = wq + 1 / service_rate
    return Steady(load, rate * w, rate * wq, w, wq, rate, waits)


def mmc_wait_exceeds(rate: float, service_rate: float, servers: int, time: float) -> float:
    """P(Wq > time) in M/M/c, first come first served: C e^-(c mu - lambda) t."""
    return erlang_c(servers, rate / service_rate) * exp(-(servers * service_rate - rate) * time)


def mmc_wait_quantile(rate: float, service_rate: float, servers: int, share: float) -> float:
    """The wait that this share of the jobs does not exceed; 0 if as many do not wait at all."""
    waits = erlang_c(servers, rate / service_rate)
    if not 0 < share < 1:
        raise Misuse(f"a share is between 0 and 1, not {share:g}")
    return max(0.0, log(waits / (1 - share)) / (servers * service_rate - rate))


def mmc_stay_exceeds(rate: float, service_rate: float, servers: int, time: float) -> float:
    """P(W > time) in M/M/c, first come first served: a service, and before it, of the share C of the jobs, a
    wait that is exponential of rate c mu - lambda. Gross and Harris, section 2.3."""
    waits = erlang_c(servers, rate / service_rate)
    return _stay_exceeds(waits, service_rate, servers * service_rate - rate, time)


def mmc_stay_quantile(rate: float, service_rate: float, servers: int, share: float) -> float:
    """The time from arrival to end that this share of the jobs does not exceed."""
    waits, spare = erlang_c(servers, rate / service_rate), servers * service_rate - rate
    if not 0 < share < 1:
        raise Misuse(f"a share is between 0 and 1, not {share:g}")
    low, high = 0.0, 1 / service_rate
    while _stay_exceeds(waits, service_rate, spare, high) > 1 - share:
        low, high = high, 2 * high
    while low < (middle := (low + high) / 2) < high:
        if _stay_exceeds(waits, service_rate, spare, middle) > 1 - share:
            low = middle
        else:
            high = middle
    return middle


def _stay_exceeds(waits: float, service_rate: float, spare: float, time: float) -> float:
    """`spare`: c mu - lambda."""
    served, apart = exp(-service_rate * time), spare - service_rate
    if abs(apart * time) < 1:  # where the two rates are nearly one, their difference has few digits left
        both = served * service_rate * (-expm1(-apart * time) / apart if apart else time)
    else:
        both = service_rate * (served - exp(-spare * time)) / apart
    return served + waits * both


def birth_death(
    birth: Callable[[int], float], death: Callable[[int], float], most: int | None = None
) -> list[float]:
    """Of a chain that goes one up at rate birth(n) and one down at rate death(n), the share of time in each
    state n = 0, 1, ...; up to `most`, or until what is left out is below 1e-13. Kleinrock I (1975), section
    3.2."""
    # In logarithms: before they are normalised, the shares of 10,000 servers are beyond any float.
    logs, most_likely, total, state = [0.0], 0.0, 1.0, 0
    while state != most:
        up, down = birth(state), death(state + 1)
        if up <= 0:
            break
        latest = logs[-1] + log(up / down)
        # A tail that falls at least as fast as a geometric one is no heavier than its first term says.
        if most is None and up < down and exp(latest - most_likely) / (1 - up / down) < PRECISION * total:
            break
        if state >= MOST_STATES:
            raise Unstable("this queue grows for ever, or for too long to be counted")
        logs.append(latest)
        if latest > most_likely:
            total, most_likely = total * exp(most_likely - latest), latest
        total += exp(latest - most_likely)
        state += 1
    weights = [exp(each - most_likely) for each in logs]
    whole = fsum(weights)
    return [weight / whole for weight in weights]


def check_tail(rate: float, service_rate: float, servers: int) -> None:
    """Raises Unstable if so many come, however many are there."""
    if rate >= servers * service_rate:
        raise Unstable(
            f"work arrives as fast as {servers} servers do it, however many jobs are there: the queue grows "
            "for ever; it takes more servers, a capacity or patience"
        )


def mmck(
    rate: float,
    service_rate: float,
    servers: int,
    capacity: int | None = None,
    abandon_rate: float = 0.0,
    joins: Callable[[int], float] | None = None,
) -> Steady:
    """M/M/c/K+M: who finds `capacity` jobs there (served and waiting) is turned away, who waits gives up at
    `abandon_rate`; without a capacity, Erlang A. Palm (1957), Ancker and Gafarian (1963). Who finds n there
    joins with probability joins(n). `Wq` and `W` are of those who were let in, whether they were served or
    gave up."""
    _positive(rate=rate, service_rate=service_rate)
    _servers(servers)
    if not (isfinite(abandon_rate) and abandon_rate >= 0):
        raise Misuse(f"abandon_rate must be a number that is not below 0, not {abandon_rate:g}")
    if capacity is None and abandon_rate == 0 and joins is None:
        return mmc(rate, service_rate, servers)
    if capacity is not None and capacity < servers:
        raise Misuse(f"a capacity of {capacity} leaves some of the {servers} servers without work for ever")

    def join(state: int) -> float:
        return 1.0 if joins is None else joins(state)

    def death(state: int) -> float:
        return min(state, servers) * service_rate + max(0, state - servers) * abandon_rate

    shares = birth_death(lambda state: rate * join(state), death, capacity)
    blocked = shares[capacity] if capacity is not None else 0.0
    inside = shares if capacity is None else shares[:capacity]
    lets_in = [share * join(n) for n, share in enumerate(inside)]
    entered = fsum(lets_in)
    jobs = fsum(n * share for n, share in enumerate(shares))
    waiting = fsum((n - servers) * share for n, share in enumerate(shares) if n > servers)
    busy = jobs - waiting
    return Steady(
        utilisation=busy / servers,
        L=jobs,
        Lq=waiting,
        W=jobs / (rate * entered),
        Wq=waiting / (rate * entered),
        throughput=busy * service_rate,
        P_wait=fsum(lets_in[servers:]) / entered,
        P_block=blocked,
        P_balk=max(0.0, fsum(inside) - entered),
        P_abandon=abandon_rate * waiting / rate,
        P_n=tuple(shares),
    )


def machine_repair(robots: int, failure_rate: float, repair_rate: float, repairers: int) -> Steady:
    """`robots` that break at `failure_rate` each while they are up, and `repairers` who mend one at a time:
    M/M/R//N. Palm (1947). `L` are down, `W` is how long, `utilisation` is of the repairers."""
    _positive(failure_rate=failure_rate, repair_rate=repair_rate)
    _servers(repairers)
    _servers(robots)
    shares = birth_death(
        lambda down: (robots - down) * failure_rate, lambda down: min(down, repairers) * repair_rate, robots
    )
    down = fsum(n * share for n, share in enumerate(shares))
    waiting = fsum((n - repairers) * share for n, share in enumerate(shares) if n > repairers)
    breaking = failure_rate * (robots - down)
    return Steady(
        utilisation=(down - waiting) / repairers,
        L=down,
        Lq=waiting,
        W=down / breaking,
        Wq=waiting / breaking,
        throughput=breaking,
        P_n=tuple(shares),
    )


# -- general service, general arrivals


def mg1(rate: float, service: Moments) -> Steady:
    """M/G/1. Pollaczek (1930), Khinchine (1932): Wq = lambda E[S^2] / (2 (1 - rho))."""
    load = _load(rate, service.mean, 1)
    wq = rate * service.second / (2 * (1 - load))
    w = wq + service.mean
    return Steady(load, rate * w, rate * wq, w, wq, rate, load)


def mg1_wait_second(rate: float, service: Moments, order: str = "fifo") -> float:
    """E[Wq^2] in M/G/1: by Takacs (1963) 2 Wq^2 + lambda E[S^3] / (3 (1 - rho)) for first come first served;
    over 1 - rho/2 in random order, over 1 - rho for last come first served (Fuhrmann 1985)."""
    if isnan(service.third):
        raise Misuse("the variance of waiting needs the third moment of the service time")
    found = mg1(rate, service)
    load = found.utilisation
    fifo = 2 * found.Wq**2 + rate * service.third / (3 * (1 - load))
    divisors = {"fifo": 1.0, "random": 1 - load / 2, "lifo": 1 - load}
    if order not in divisors:
        raise Misuse(f"the order is one of {', '.join(divisors)}, not {order!r}")
    return fifo / divisors[order]


def gm1(transform: Callable[[float], float], rate: float, service_rate: float) -> Steady:
    """GI/M/1, by the root sigma of sigma = A*(mu (1 - sigma)), where `transform` is A*, the
    Laplace-Stieltjes transform of the time between arrivals, of mean 1 / `rate`. Kleinrock I (1975), chapter
    6."""
    _positive(service_rate=service_rate)
    load = _load(rate, 1 / service_rate, 1)
    low, high = (
        0.0,
        1 - 1e-12,
    )  # A* is convex: below the root of 1 it is above the line, between the roots below
    while high - low > 1e-15:
        sigma = (low + high) / 2
        if sigma in (low, high):
            break
        if transform(service_rate * (1 - sigma)) > sigma:
            low = sigma
        else:
            high = sigma
    sigma = (low + high) / 2
    wq = sigma / (service_rate * (1 - sigma))
    w = wq + 1 / service_rate
    return Steady(load, rate * w, rate * wq, w, wq, rate, sigma)


def batches_mm1(batch_rate: float, size_mean: float, size_second: float, service_rate: float) -> Steady:
    """M^X/M/1: L = rho (1 + E[X^2] / E[X]) / (2 (1 - rho)). Gross and Harris, section 3.1; Burke (1975)."""
    _positive(size_mean=size_mean, size_second=size_second, service_rate=service_rate)
    rate = batch_rate * size_mean
    load = _load(rate, 1 / service_rate, 1)
    jobs = load * (1 + size_second / size_mean) / (2 * (1 - load))
    w = jobs / rate
    wq = w - 1 / service_rate
    return Steady(load, jobs, rate * wq, w, wq, rate)


def interrupted(service: Moments, failure_rate: float, repair: Moments) -> Moments:
    """Of the time that a job keeps a server which breaks at `failure_rate` while it works, is repaired, and
    goes on where it was. Gaver (1962), Avi-Itzhak and Naor (1963); with `mg1` the queue before such a
    server."""
    longer = 1 + failure_rate * repair.mean
    return Moments(
        service.mean * longer, service.second * longer**2 + failure_rate * service.mean * repair.second
    )


# -- priorities: the first class is the most urgent


class _Classes(msgspec.Struct, frozen=True):
    loads: list[float]  # of this class and all above it; before the first, 0
    residual: list[float]  # the same of rate times E[S^2] / 2


def _classes(rates: Sequence[float], services: Sequence[Moments]) -> _Classes:
    if not rates or len(rates) != len(services):
        raise Misuse("each class has a rate and a service time")
    loads, residual = [0.0], [0.0]
    for rate, service in zip(rates, services, strict=True):
        _positive(rate=rate)
        if not (isfinite(service.mean) and service.mean >= 0):
            raise Misuse(f"mean must be a number that is not below 0, not {service.mean:g}")
        loads.append(loads[-1] + rate * service.mean)
        residual.append(residual[-1] + rate * service.second / 2)
    if loads[-1] >= 1:
        raise Unstable(f"the load is {loads[-1]:g}: the queue of the least urgent class grows for ever")
    return _Classes(loads, residual)


def cobham(rates: Sequence[float], services: Sequence[Moments]) -> list[float]:
    """Wq of each class in M/G/1 with priorities that interrupt nobody: W0 / ((1 - s_{k-1}) (1 - s_k)).
    Cobham (1954); Kleinrock II (1976), section 3.6."""
    classes = _classes(rates, services)
    loads = classes.loads
    return [classes.residual[-1] / ((1 - loads[k]) * (1 - loads[k + 1])) for k in range(len(rates))]


def cobham_mmc(rates: Sequence[float], service_rate: float, servers: int) -> list[float]:
    """Wq of each class in M/M/c with priorities that interrupt nobody: C / (c mu (1 - s_{k-1}) (1 - s_k)).
    Cobham (1954), Kella and Yechiali (1985)."""
    _positive(service_rate=service_rate)
    loads = [0.0]
    for rate in rates:
        _positive(rate=rate)
        loads.append(loads[-1] + rate / service_rate / servers)
    waits = erlang_c(servers, loads[-1] * servers) / (servers * service_rate)
    return [waits / ((1 - loads[k]) * (1 - loads[k + 1])) for k in range(len(rates))]


def preemptive(rates: Sequence[float], services: Sequence[Moments]) -> list[float]:
    """W of each class in M/G/1 with priorities that interrupt, and jobs that go on where they were: E[S_k] /
    (1 - s_{k-1}) + sum_{i <= k} lambda_i E[S_i^2] / 2 / ((1 - s_{k-1}) (1 - s_k)). Kleinrock II (1976),
    section 3.7."""
    classes = _classes(rates, services)
    loads, residual = classes.loads, classes.residual
    return [
        service.mean / (1 - loads[k]) + residual[k + 1] / ((1 - loads[k]) * (1 - loads[k + 1]))
        for k, service in enumerate(services)
    ]


# -- approximations and bounds


def kingman_bound(rate: float, arrival_variance: float, service: Moments) -> float:
    """Wq of G/G/1 is no more: lambda (va + vs) / (2 (1 - rho)). Kingman (1962)."""
    load = _load(rate, service.mean, 1)
    return rate * (arrival_variance + service.second - service.mean**2) / (2 * (1 - load))


def allen_cunneen(rate: float, arrival_scv: float, service: Moments, servers: int) -> float:
    """Wq of G/G/c is about that of M/M/c times (ca^2 + cs^2) / 2. Allen (1990); for one server this is
    Kingman's approximation (1961)."""
    found = mmc(rate, 1 / service.mean, servers)
    return found.Wq * (arrival_scv + service.scv) / 2
