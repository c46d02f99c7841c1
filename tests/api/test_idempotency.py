"""A request with a key is carried out once, however often it comes; one that was refused is not kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import World, quick_limits, served

from actors.local import LocalFleet
from fleet.messages import Cancel, Get, JobSpec, Retry, Submit

JOB = {"name": "weld", "payload": {"b": [1.5, None], "a": "x"}, "priority": 3}
SOME_BAD = [{"name": "a"}, {"name": ""}, {"name": "b"}, {}]


def key(name: str = "k") -> dict[str, str]:
    return {"Idempotency-Key": name}


def refused(answer: httpx.Response, status: int, code: str) -> None:
    assert (answer.status_code, answer.json()["code"]) == (status, code), answer.text


def replayed(answer: httpx.Response) -> bool:
    return answer.headers.get("idempotency-replayed") == "true"


async def names(http: httpx.AsyncClient) -> list[str]:
    return [job["name"] for job in (await http.get("/jobs")).json()["jobs"]]


@asynccontextmanager
async def world_of(store: str = "memory:", **limits: Any) -> AsyncIterator[World]:
    fleet = LocalFleet(quick_limits(**limits), "0.0.0-test", store)
    async with served(fleet) as world:
        yield world
    await fleet.close()


async def test_a_repeated_request_gets_the_same_bytes_and_says_so(world: World) -> None:
    async with world.http() as http:
        for path, body in (("/jobs", JOB), ("/jobs", [JOB] * 3), ("/jobs?partial=true", SOME_BAD)):
            once, again = [
                await http.post(path, json=body, headers=key(f"{type(body)}{path}".replace(" ", "")))
                for _ in range(2)
            ]
            assert once.is_success
            assert (again.status_code, again.content) == (once.status_code, once.content)
            assert (replayed(once), replayed(again)) == (False, True)
        assert sorted(await names(http)) == ["a", "b", *["weld"] * 4]


async def test_a_replay_shows_the_job_as_it_was_first(world: World) -> None:
    async with world.http() as http:
        once = await http.post("/jobs", json=JOB, headers=key())
        await http.post(f"/jobs/{once.json()['job_id']}/cancel")
        again = await http.post("/jobs", json=JOB, headers=key())
        assert again.content == once.content
        assert (await http.get(f"/jobs/{once.json()['job_id']}")).json()["status"] == "cancelled"


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (b'{"name":"x","payload":{"a":1,"b":2}}', b' {"payload": {"b": 2, "a": 1}, "name": "\\u0078"}'),
        (b'{"name":"x"}', b'{"name":"x","priority":10,"payload":{},"max_attempts":3.0}'),
        (
            b'{"name":"x","not_before":"2030-01-01T01:00:00+01:00"}',
            b'{"name":"x","not_before":"2030-01-01T00:00:00Z"}',
        ),
        (b'[{"name":"x"}]', b'[ {"name":"x"} ]'),
    ],
)
async def test_what_means_the_same_is_the_same(world: World, first: bytes, second: bytes) -> None:
    headers = key() | {"content-type": "application/json"}
    async with world.http() as http:
        once = await http.post("/jobs", content=first, headers=headers)
        again = await http.post("/jobs", content=second, headers=headers)
    assert once.status_code == 201
    assert (again.content, replayed(again)) == (once.content, True)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/jobs", JOB | {"priority": 4}),
        ("/jobs", JOB | {"payload": {"b": [1.5, None], "a": "y"}}),
        ("/jobs", [JOB]),
        ("/jobs?partial=true", [JOB]),
        ("/jobs/redrive", {"filter": {}}),
    ],
)
async def test_another_request_with_the_same_key_is_refused(world: World, path: str, body: Any) -> None:
    async with world.http() as http:
        await http.post("/jobs", json=JOB, headers=key())
        refused(await http.post(path, json=body, headers=key()), 422, "idempotency_key_reused")
        assert await names(http) == ["weld"]


async def test_a_bad_item_of_a_partial_list_is_part_of_the_request(world: World) -> None:
    async with world.http() as http:
        await http.post("/jobs?partial=true", json=SOME_BAD, headers=key())
        other = [*SOME_BAD[:1], {"nome": ""}, *SOME_BAD[2:]]
        answer = await http.post("/jobs?partial=true", json=other, headers=key())
        refused(answer, 422, "idempotency_key_reused")


async def test_a_hundred_at_once_make_one_job_and_get_equal_answers(world: World) -> None:
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(limits=limits, timeout=30) as many, world.http() as http:
        many.headers = http.headers
        url = f"{http.base_url}jobs"
        answers = await asyncio.gather(*(many.post(url, json=JOB, headers=key()) for _ in range(100)))
        assert {(answer.status_code, answer.content) for answer in answers} == {(201, answers[0].content)}
        assert [replayed(answer) for answer in answers].count(False) == 1
        assert await names(http) == ["weld"]


async def test_each_client_has_keys_of_its_own(world: World) -> None:
    async with world.http() as http:
        mine = await http.post("/jobs", json=JOB, headers=key())
        theirs = {"authorization": f"Bearer {world.token(sub='somebody else')}"}
        other = await http.post("/jobs", json=JOB | {"priority": 9}, headers=key() | theirs)
        assert (mine.status_code, other.status_code, replayed(other)) == (201, 201, False)


@pytest.mark.parametrize("bad", ["", "a b", "x" * 256, "\xe9", "a\tb"])
async def test_a_key_that_is_none_is_refused(world: World, bad: str) -> None:
    async with world.http() as http:
        for path, body in (("/jobs", JOB), ("/jobs/redrive", {"filter": {}}), ("/jobs/x/retry", None)):
            answer = await http.post(path, json=body, headers=[("Idempotency-Key", bad.encode("latin-1"))])
            refused(answer, 400, "bad_idempotency_key")
        two = [("Idempotency-Key", "a"), ("Idempotency-Key", "b")]
        refused(await http.post("/jobs", json=JOB, headers=two), 400, "bad_idempotency_key")
        assert await names(http) == []
        assert (await http.post("/jobs", json=JOB, headers=key("!" + "~" * 254))).status_code == 201


async def test_what_was_refused_may_be_corrected_under_its_key() -> None:
    async with world_of(max_pending=2) as world, world.http() as http:
        refused(await http.post("/jobs", json={"name": ""}, headers=key()), 422, "invalid")
        bad = (await http.post("/jobs?partial=true", json=[{}], headers=key())).json()
        assert bad["results"][0]["error"]["code"] == "invalid"
        full = await http.post("/jobs", json=[JOB] * 3, headers=key())
        refused(full, 429, "queue_full")
        assert int(full.headers["retry-after"]) >= 1
        assert await names(http) == []
        assert (await http.post("/jobs", json=[JOB] * 2, headers=key())).status_code == 201


async def test_a_full_queue_takes_no_part_of_a_partial_list_either() -> None:
    async with world_of(max_pending=2) as world, world.http() as http:
        await http.post("/jobs", json=JOB)
        answer = await http.post("/jobs?partial=true", json=[*SOME_BAD, JOB])
        refused(answer, 429, "queue_full")
        assert "retry-after" in answer.headers
        assert await names(http) == ["weld"]
        assert (await http.post("/jobs?partial=true", json=SOME_BAD[:2])).status_code == 200


async def test_a_store_that_keeps_as_many_keys_as_it_may_takes_jobs_without() -> None:
    async with world_of(max_replies=1) as world, world.http() as http:
        assert (await http.post("/jobs", json=JOB, headers=key("1"))).status_code == 201
        refused(await http.post("/jobs", json=JOB, headers=key("2")), 429, "too_many_keys")
        assert replayed(await http.post("/jobs", json=JOB, headers=key("1")))
        assert (await http.post("/jobs", json=JOB)).status_code == 201


async def test_a_retry_with_a_key_makes_one_job(world: World) -> None:
    async with world.http() as http:
        job_id = (await http.post("/jobs", json=JOB)).json()["job_id"]
        await http.post(f"/jobs/{job_id}/cancel")
        once, again = [await http.post(f"/jobs/{job_id}/retry", headers=key()) for _ in range(2)]
        assert (once.status_code, again.content, replayed(again)) == (201, once.content, True)
        assert len(await names(http)) == 2


async def test_a_crash_between_commit_and_answer_changes_nothing_for_who_asks_again(tmp_path: Path) -> None:
    """The door sends its command again, under the ids that it made; a client sends its request again."""
    store = f"sqlite:{tmp_path}"
    specs = [JobSpec(name="weld", priority=3, payload=JOB["payload"])]  # type: ignore[arg-type]
    async with world_of(store) as world, world.http() as http:
        first = await http.post("/jobs", json=JOB, headers=key())
        job_id = first.json()["job_id"]
        command = Submit(["from-the-door"], specs, request_id="its key", fingerprint="m")
        [answered] = await world.fleet.execute(command)
        cancelled = await world.fleet.execute(Cancel(job_id, request_id="c"))
        retried = await world.fleet.execute(Retry(job_id, "again"))
    async with world_of(store) as world, world.http() as http:
        assert await world.fleet.execute(command) == [answered]
        assert await world.fleet.execute(Cancel(job_id, request_id="c")) == cancelled
        assert await world.fleet.execute(Retry(job_id, "again")) == retried
        again = await http.post("/jobs", json=JOB, headers=key())
        assert (again.content, replayed(again)) == (first.content, True)
        assert len(await names(http)) == 3
        assert (await world.fleet.execute(Get(job_id))).status == "cancelled"


async def test_keys_that_have_left_memory_are_found_in_the_journal(tmp_path: Path) -> None:
    limits = {"max_remembered": 4, "max_finished": 2}
    async with world_of(f"sqlite:{tmp_path}", **limits) as world, world.http() as http:
        first = [await http.post("/jobs", json=[JOB] * 2, headers=key(str(n))) for n in range(12)]
        for answer in first:
            for job in answer.json()["jobs"]:
                await http.post(f"/jobs/{job['job_id']}/cancel")
        asked = [http.post("/jobs", json=[JOB] * 2, headers=key(str(n))) for n in range(12) for _ in range(3)]
        again = await asyncio.gather(*asked)
        assert [answer.content for answer in again] == [a.content for a in first for _ in range(3)]
        assert all(map(replayed, again))
        assert len(await names(http)) == 24
        assert world.fleet.rooms.job_store._core.replies.generation >= 6


async def test_what_happens_while_the_journal_is_searched_for_a_key_is_not_overlooked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The key is found nowhere; meanwhile another takes it, and leaves memory again."""
    fleet = LocalFleet(quick_limits(max_remembered=2), "", f"sqlite:{tmp_path}")
    room = fleet.rooms.job_store
    read, specs = room._read, [JobSpec(name="weld")]

    async def read_slowly(look: Any, *args: Any) -> Any:
        found = await read(look, *args)
        if args == (["k"],):
            monkeypatch.undo()
            for key in ("k", "l", "m", "n"):
                await room.execute([Submit([f"other-{key}"], specs, request_id=key, fingerprint="f")])
        return found

    monkeypatch.setattr(room, "_read", read_slowly)
    [[job]] = await room.execute([Submit(["mine"], specs, request_id="k", fingerprint="f")])
    assert job.job_id == "other-k"
    await fleet.close()


async def test_a_page_of_an_allowed_origin_may_read_that_it_is_a_replay() -> None:
    fleet = LocalFleet(quick_limits(), "0.0.0-test")
    async with served(fleet, allowed_origins=["https://ops.example"]) as world, world.http() as http:
        answer = await http.post("/jobs", json=JOB, headers={"origin": "https://ops.example"})
        assert "Idempotency-Replayed" in answer.headers["access-control-expose-headers"]
    await fleet.close()
