"""The theory of queues, against figures of textbooks and of the papers that it is from."""

from __future__ import annotations

from math import exp

import pytest

from fleet.errors import Misuse
from simulators.queue import theory
from simulators.queue.theory import Moments, Steady

CLOSE = 1e-8
EXPONENTIAL = Moments(1.0, 2.0, 6.0)
# Balanced means, scv 4.
H2_P = (0.8872983346207417, 0.1127016653792583)


def hyper(*rates: float) -> Moments:
    parts = list(zip(H2_P, rates, strict=True))
    return Moments(
        sum(p / rate for p, rate in parts),
        sum(2 * p / rate**2 for p, rate in parts),
        sum(6 * p / rate**3 for p, rate in parts),
    )


def erlang(phases: int, mean: float = 1.0) -> Moments:
    return Moments(
        mean,
        mean**2 * (phases + 1) / phases,
        mean**3 * (phases + 1) * (phases + 2) / phases**2,
    )


def assert_is(found: Steady, **expected: float) -> None:
    assert {name: getattr(found, name) for name in expected} == pytest.approx(expected, rel=CLOSE)


def test_one_server_by_kleinrock() -> None:
    found = theory.mmc(0.75, 1.0)
    assert_is(found, utilisation=0.75, L=3.0, Lq=2.25, W=4.0, Wq=3.0, P_wait=0.75, throughput=0.75)
    assert theory.mmc_wait_exceeds(0.75, 1.0, 1, 10.8322008) == pytest.approx(0.05, rel=1e-6)
    assert theory.mmc_wait_quantile(0.75, 1.0, 1, 0.95) == pytest.approx(10.8322008, rel=CLOSE)
    assert theory.mmc_wait_quantile(0.2, 0.1, 3, 0.95) == pytest.approx(21.84802057, rel=CLOSE)
    assert theory.mmc_wait_quantile(0.2, 0.1, 3, 0.5) == 0.0


def test_times_in_system_are_a_wait_and_a_service() -> None:
    """With one server they are exponential, of rate mu - lambda; with several, their mean is W. Where c mu -
    lambda is mu, the formula has a gap to be filled: there it must be as it is next to it."""
    assert theory.mmc_stay_exceeds(0.75, 1.0, 1, 8.0) == pytest.approx(exp(-2.0), rel=CLOSE)
    assert theory.mmc_stay_quantile(0.75, 1.0, 1, 0.95) == pytest.approx(11.98292909, rel=CLOSE)
    for rate in (0.2, 0.05, 0.29):
        tail = [theory.mmc_stay_exceeds(rate, 0.1, 3, (n + 0.5) / 10) for n in range(30_000)]
        assert sum(tail) / 10 == pytest.approx(theory.mmc(rate, 0.1, 3).W, rel=1e-4)
    beside = theory.mmc_stay_exceeds(0.2 + 1e-9, 0.1, 3, 20.0)
    assert theory.mmc_stay_exceeds(0.2, 0.1, 3, 20.0) == pytest.approx(beside, rel=1e-6)
    with pytest.raises(Misuse, match="between 0 and 1"):
        theory.mmc_stay_quantile(0.2, 0.1, 3, 1.0)


@pytest.mark.parametrize(
    ("rate", "service_rate", "servers", "expected"),
    [
        (0.2, 0.1, 3, {"P_wait": 0.4444444444, "Wq": 4.444444444, "W": 14.44444444, "L": 2.888888889}),
        (8.0, 1.0, 10, {"P_wait": 0.4091801508, "Wq": 0.2045900754, "Lq": 1.636720603, "L": 9.636720603}),
        (
            48.0,
            1.0,
            50,
            {"P_wait": 0.6944556112, "Wq": 20.83366834 / 60, "Lq": 16.66693467, "utilisation": 0.96},
        ),
    ],
)
def test_several_servers_by_erlang(
    rate: float, service_rate: float, servers: int, expected: dict[str, float]
) -> None:
    assert_is(theory.mmc(rate, service_rate, servers), **expected)


def test_many_servers_do_not_overflow() -> None:
    found = theory.mmc(9_900.0, 1.0, 10_000)
    assert 0 < (found.P_wait or 0) < 1
    assert pytest.approx(1.0, abs=0.01) == found.W


def test_calls_without_a_queue_by_erlang() -> None:
    assert theory.erlang_b(10, 5.0) == pytest.approx(0.01838457034, rel=CLOSE)
    found = theory.mmck(5.0, 1.0, servers=10, capacity=10)
    assert_is(found, P_block=0.01838457034, throughput=4.908077148, utilisation=0.4908077148)
    assert found.P_wait == 0


def test_a_room_that_is_full_turns_people_away() -> None:
    found = theory.mmck(3.0, 4.0, servers=2, capacity=3)
    assert_is(found, P_block=0.04936014625, L=0.7623400366, W=0.2673076923, Wq=0.01730769231)
    assert_is(found, throughput=2.851919561, utilisation=0.3564899452)
    assert found.P_n == pytest.approx([0.4680073126, 0.3510054845, 0.1316270567, 0.04936014625], rel=CLOSE)
    assert_is(theory.mmck(3.8, 1.0, 4, 20), P_block=0.03127291868, L=9.291143263, Wq=1.523969597)


def test_a_call_centre_whose_callers_give_up() -> None:
    """Gans, Koole and Mandelbaum (2003): 50 agents, 48 calls a minute, a minute each, two of patience."""
    found = theory.mmck(48.0, 1.0, servers=50, abandon_rate=0.5)
    assert_is(found, P_abandon=0.03091224916, Lq=2.96757592, utilisation=0.9303242408, P_wait=0.4677740686)
    assert found.Wq == pytest.approx(0.06182449832, rel=CLOSE)


def test_a_full_room_and_people_who_give_up() -> None:
    found = theory.mmck(5.0, 1.0, servers=5, capacity=12, abandon_rate=1 / 3)
    assert_is(found, P_abandon=0.1081686234, P_block=0.0268362075, Lq=1.622529351, L=5.947505196)
    assert_is(found, utilisation=0.8649951691, throughput=4.324975845)


def test_whoever_gives_up_at_once_leaves_a_queue_without_waiting_room() -> None:
    impatient = theory.mmck(5.0, 1.0, servers=10, abandon_rate=1e9)
    assert impatient.P_abandon == pytest.approx(theory.erlang_b(10, 5.0), rel=1e-6)


def test_discouraged_arrivals_are_a_poisson_distribution() -> None:
    shares = theory.birth_death(lambda n: 2.0 / (n + 1), lambda n: 1.0)
    assert shares[0] == pytest.approx(0.1353352832, rel=CLOSE)
    assert sum(n * share for n, share in enumerate(shares)) == pytest.approx(2.0, rel=CLOSE)


def test_robots_that_break_and_one_who_mends_them() -> None:
    found = theory.machine_repair(10, failure_rate=1 / 20, repair_rate=1 / 1.5, repairers=1)
    assert_is(found, L=1.380886263, throughput=0.4309556869, W=3.204241886, Wq=1.704241886)
    assert_is(found, utilisation=0.6464335303)
    assert found.P_n[:3] == pytest.approx([0.3535664697, 0.2651748523, 0.1789930253], rel=CLOSE)


@pytest.mark.parametrize(
    ("rate", "service", "wq", "wait_variance"),
    [
        (0.8, Moments(1.0, 1.0, 1.0), 2.0, 5.333333333),
        (0.85, erlang(4), 3.541666667, 16.08506944),
        (0.7, hyper(1.7745966692414834, 0.2254033307585166), 5.833333333, 80.69444444),
    ],
)
def test_general_service_by_pollaczek_and_khinchine(
    rate: float, service: Moments, wq: float, wait_variance: float
) -> None:
    assert_is(theory.mg1(rate, service), Wq=wq, W=wq + 1, Lq=rate * wq, utilisation=rate)
    variance = theory.mg1_wait_second(rate, service) - wq**2
    assert variance == pytest.approx(wait_variance, rel=1e-7)


def test_the_order_of_service_changes_the_variance_of_waiting() -> None:
    found = {order: theory.mg1_wait_second(0.8, EXPONENTIAL, order) for order in ("fifo", "random", "lifo")}
    assert found == pytest.approx({"fifo": 40.0, "random": 66.66666667, "lifo": 200.0}, rel=CLOSE)


def test_general_arrivals_by_the_root_of_their_transform() -> None:
    clockwork = theory.gm1(lambda s: exp(-1.25 * s), 0.8, 1.0)
    assert_is(clockwork, P_wait=0.6286297965, Wq=1.69273084, W=2.69273084, L=2.154184672)
    rates = (1.4196773353931866, 0.1803226646068133)
    bursty = theory.gm1(
        lambda s: sum(p * rate / (rate + s) for p, rate in zip(H2_P, rates, strict=True)), 0.8, 1.0
    )
    assert_is(bursty, P_wait=0.9075716626, Wq=9.819192772, L=8.655354218)
    poisson = theory.gm1(lambda s: 0.8 / (0.8 + s), 0.8, 1.0)
    assert_is(poisson, Wq=theory.mmc(0.8, 1.0).Wq)


def test_batches_wait_for_their_own() -> None:
    assert_is(theory.batches_mm1(0.15, 5.0, 25.0, 1.0), L=9.0, W=12.0, utilisation=0.75)
    assert_is(theory.batches_mm1(0.75, 1.0, 1.0, 1.0), L=theory.mmc(0.75, 1.0).L)


def test_a_server_that_breaks_while_it_works() -> None:
    """The robot's own time per job grows, and with it the queue."""
    keeps = theory.interrupted(EXPONENTIAL, 0.1, Moments(1.5, 2 * 1.5**2))
    found = theory.mg1(0.6, keeps)
    assert_is(found, W=4.14516129, L=2.487096774, utilisation=0.69)


def test_an_emergency_room_by_cobham() -> None:
    """Hillier and Lieberman's County Hospital, in hours."""
    rates, services = [0.2, 0.6, 1.2], [Moments(1 / 3, 2 / 9)] * 3
    assert theory.cobham(rates, services) == pytest.approx(
        [0.2380952381, 0.3246753247, 0.9090909091], rel=CLOSE
    )
    assert theory.preemptive(rates, services) == pytest.approx(
        [0.3571428571, 0.487012987, 1.363636364], rel=1e-8
    )


def test_priorities_with_service_of_any_kind() -> None:
    rates = [0.3, 0.2, 0.1]
    services = [Moments(0.5, 0.25), EXPONENTIAL, hyper(0.5915322230804945, 0.0751344435861722)]
    assert theory.cobham(rates, services) == pytest.approx([2.926470588, 4.502262443, 10.93406593], rel=CLOSE)
    assert theory.preemptive(rates, services) == pytest.approx(
        [0.5441176471, 1.606334842, 15.54945055], rel=CLOSE
    )


def test_bounds_and_approximations_of_general_queues() -> None:
    service = erlang(2)
    assert theory.kingman_bound(0.8, 1.25**2 / 2, service) == pytest.approx(2.5625, rel=CLOSE)
    assert theory.allen_cunneen(0.8, 0.5, service, 1) == pytest.approx(2.0, rel=CLOSE)
    assert theory.allen_cunneen(8.0, 1.0, EXPONENTIAL, 10) == pytest.approx(0.2045900754, rel=CLOSE)


# -- what is no queue


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (lambda: theory.mmc(1.0, 1.0), "the load is 1"),
        (lambda: theory.mmc(-1.0, 1.0), "rate must be a number above 0"),
        (lambda: theory.mmc(float("nan"), 1.0), "rate must be a number above 0"),
        (lambda: theory.mmc(1.0, float("inf"), 2), "service_rate must be a number above 0"),
        (lambda: theory.mmc(1.0, 2.0, 0), "one server at least"),
        (lambda: theory.mg1(2.0, EXPONENTIAL), "grows for ever"),
        (lambda: theory.mg1_wait_second(0.5, Moments(1.0, 2.0)), "third moment"),
        (lambda: theory.mg1_wait_second(0.5, EXPONENTIAL, "sjf"), "fifo, random, lifo"),
        (lambda: theory.mmck(5.0, 1.0, 5, capacity=4), "leaves some of the 5 servers without work"),
        (lambda: theory.mmck(5.0, 1.0, 5, abandon_rate=-1.0), "must be a number that is not below 0"),
        (lambda: theory.cobham([0.6, 0.6], [EXPONENTIAL] * 2), "least urgent class"),
        (lambda: theory.cobham([0.6], []), "each class"),
        (lambda: theory.birth_death(lambda n: 2.0, lambda n: 1.0), "grows for ever"),
    ],
)
def test_figures_that_make_no_queue_are_refused(ask: object, says: str) -> None:
    with pytest.raises(Misuse, match=says):
        ask()  # type: ignore[operator]
