"""The performance of a run that never was."""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import polars as pl

from simulators.load.beats import Ints
from simulators.load.conductor import Moment, Performance
from simulators.load.latency import Latencies
from simulators.load.outcome import Generator, JobFigures, Outcome, Rates, Verdict
from simulators.load.usage import NodeUsage, Used
from simulators.load.usage_log import MIB, UsageLog

SECONDS = [(at_s, 100 + at_s, 5.0, 9.0 + at_s, 12.0) for at_s in range(10)]


def performance(
    name: str = "made",
    latencies_us: Ints | None = None,
    seconds: list[Any] = SECONDS,
    refused: dict[str, int] | None = None,
    **changed: Any,
) -> Performance:
    latencies = Latencies()
    values = np.arange(1_000, 1_001_000, 1_000) if latencies_us is None else latencies_us
    latencies.record(values)
    summary = latencies.summary()
    usage = usage_log()
    outcome = Outcome(
        name=name,
        started_at="2026-03-04T05:06:07.890Z",
        url="http://127.0.0.1:1",
        seed=1,
        robots=10,
        watchers=3,
        lasted_s=10.0,
        valid=True,
        invalid_because=[],
        complete=True,
        incomplete_because=[],
        sent=100,
        received=300,
        lost=0,
        duplicated=0,
        reordered=0,
        in_flight=0,
        latency_ms=summary,
        latencies_ms={"heartbeat_to_watcher": summary} if len(latencies) else {},
        beats=Rates(100, 100, 10.0, 10.0),
        jobs=JobFigures(20, 20, 20, 0, 0, 0, 0, 0, {}),
        robot_reconnects=0,
        robots_stalled=0,
        robots_refused=refused or {},
        watchers_closed={},
        watchers_late=0,
        gaps=0,
        not_understood=0,
        generator=Generator({"p99": 1.0}, 0.0),
        usage=usage.figures(1_024),
        thresholds=[Verdict("events_lost", "== 0", 0.0, True)],
        version="0.0.0-test",
    )
    schema: dict[str, Any] = {"at_s": pl.Int64, "received": pl.Int64}
    schema |= dict.fromkeys(("p50_ms", "p99_ms", "max_ms"), pl.Float64)
    moments = [msgspec.structs.asdict(_moment(at_s)) for at_s in range(10)]
    return Performance(
        msgspec.structs.replace(outcome, **changed),
        pl.DataFrame(moments),
        pl.DataFrame(seconds, schema, orient="row"),
        usage.frame(),
        {"heartbeat_to_watcher": latencies},
    )


def usage_log() -> UsageLog:
    """Of two nodes with four cores: a server that keeps one and a half busy on the first, and grows by 1 MiB
    when robots come; a generator that keeps a quarter busy on each."""
    log = UsageLog()
    log.note(-2.0, [_node("a", -2.0, server_mib=100), _node("b", -2.0)])
    log.before_robots()
    log.note(-1.0, [_node("a", -1.0, server_mib=101), _node("b", -1.0)])
    log.begin(generator_robots=1_024 * 2_048)
    for at_s in range(10):
        log.note(float(at_s), [_node("a", float(at_s), server_mib=101 + at_s), _node("b", float(at_s))])
    log.end()
    for at_s in range(10, 40):  # nobody has anything to do any more, and then the server is gone
        idle = msgspec.structs.replace(_node("a", 9.0, server_mib=500), at_s=float(at_s))
        log.note(float(at_s), [idle if at_s < 30 else _node("a", float(at_s)), _node("b", float(at_s))])
    return log


def _node(name: str, at_s: float, server_mib: int | None = None) -> NodeUsage:
    ran_s = at_s + 2.0
    server = Used() if server_mib is None else Used(3, 1.5 * ran_s, server_mib * MIB)
    return NodeUsage(name, at_s, 4, 2.0 * ran_s, 1_000 * MIB, server, Used(2, 0.25 * ran_s, 50 * MIB))


def _moment(at_s: int) -> Moment:
    return Moment(
        phase="running",
        at_s=float(at_s),
        lasts_s=10.0,
        robots=10,
        connected_robots=10,
        watchers=3,
        connected_watchers=3,
        beats_offered=10 * at_s,
        beats_sent=10 * at_s,
        events=30 * at_s,
        jobs_offered=2 * at_s,
        jobs_accepted=2 * at_s,
        jobs_completed=2 * at_s,
        jobs_open=0,
        latency_p50_ms=5.0,
        latency_p99_ms=9.0,
        lag_p99_ms=1.0,
        queue_depth=at_s % 3,
        idle=10 - at_s,
        busy=at_s,
        offline=0,
    )
