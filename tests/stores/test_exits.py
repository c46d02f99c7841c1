"""When an actor ends itself: what it would promise is not written, or another writes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores.kept import FLEET, LIMITS, sqlite_tables

from actors import stores
from actors.broadcaster import Broadcaster
from actors.database import StoreHeld, StoreRefused, StoreUnreachable
from actors.job_store import JobStoreRoom
from actors.writer import LostWriter
from fleet.limits import Limits
from fleet.messages import JobSpec, Submit


class Exited(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def exits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    codes: list[int] = []

    def leave(code: int) -> None:
        codes.append(code)
        raise Exited

    monkeypatch.setattr("os._exit", leave)
    return codes


@pytest.fixture
def room_of(tmp_path: Path) -> Callable[..., JobStoreRoom]:
    def make(**limits: int) -> JobStoreRoom:
        made = Limits(**limits)
        feeds = Broadcaster(made), Broadcaster(made)
        return JobStoreRoom(made, *feeds, f"sqlite:{tmp_path}", FLEET)

    return make


async def test_a_room_whose_commit_fails_exits_before_it_answers(
    room_of: Callable[..., JobStoreRoom], exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_of()

    def fail(records: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(room._tables, "write", fail)
    with pytest.raises(Exited):
        await room.execute([Submit(["j"], [JobSpec(name="weld")])])
    assert exits[0] == 1
    await room.close()


async def test_a_room_that_lost_its_store_to_a_newer_one_exits_though_nobody_asks(
    room_of: Callable[..., JobStoreRoom], exits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    room = room_of(clock_note_ms=1)

    def lost() -> None:
        raise LostWriter("a newer one is there")

    monkeypatch.setattr(room._tables, "note_clock", lost)
    while not exits:
        await asyncio.sleep(0.001)
    assert exits == [1]
    await room.close()


@pytest.mark.parametrize("work", ["compact", "clean"])
async def test_a_room_whose_upkeep_fails_exits(
    room_of: Callable[..., JobStoreRoom], exits: list[int], monkeypatch: pytest.MonkeyPatch, work: str
) -> None:
    room = room_of(**{f"{work}_interval_ms": 1})

    def fail(*args: Any) -> None:
        raise OSError("the disk is full")

    monkeypatch.setattr(room._tables, work, fail)
    while not exits:
        await asyncio.sleep(0.001)
    await room.close()


# -- while it is opened


def opening(*outcomes: Any) -> Callable[[], Any]:
    left = iter(outcomes)

    def open_() -> Any:
        outcome = next(left)
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    return open_


def test_a_store_that_does_not_answer_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("time.sleep", lambda _: None)
    assert stores.opened(opening(StoreUnreachable("x"), StoreUnreachable("x"), 7)) == 7


def test_one_that_stays_away_is_left_to_the_next_life(
    monkeypatch: pytest.MonkeyPatch, exits: list[int]
) -> None:
    monkeypatch.setattr("actors.stores.OPEN_S", 0.0)
    with pytest.raises(Exited):
        stores.opened(opening(StoreUnreachable("x"), 7))


def test_one_that_another_holds_is_left_to_the_next_life(exits: list[int]) -> None:
    with pytest.raises(Exited):
        stores.opened(opening(StoreHeld("x"), 7))


def test_one_that_must_not_be_used_is_refused_for_good(exits: list[int]) -> None:
    with pytest.raises(StoreRefused, match="damaged"):
        stores.opened(opening(StoreRefused("damaged"), 7))
    assert exits == []


def test_a_store_that_cannot_be_opened_at_all_is_not_half_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: Any) -> None:
        raise RuntimeError("a bug")

    tables = sqlite_tables(tmp_path)
    with monkeypatch.context() as broken:
        broken.setattr(tables._writer, "_take", fail)
        with pytest.raises(RuntimeError):
            tables.open(0)
    again = sqlite_tables(tmp_path, LIMITS)  # which would wait for a lock that nobody gives back
    again.open(0)
    again.close()
