"""First replies, kept for who asks again."""

from __future__ import annotations

import pytest

from fleet.errors import NotFound
from fleet.replies import Replies


class Counter:
    """Does something that must not be done twice."""

    def __init__(self) -> None:
        self.done = 0

    def __call__(self) -> int:
        self.done += 1
        return self.done

    def refuse(self) -> int:
        raise NotFound("no such thing")


def test_a_request_that_is_repeated_is_done_once_and_answered_as_the_first_time() -> None:
    replies, count = Replies(2), Counter()
    assert [replies.once("a", count) for _ in range(3)] == [1, 1, 1]
    assert replies.once("b", count) == 2


def test_a_reply_of_nothing_is_a_reply_too() -> None:
    replies, done = Replies(2), list[str]()
    for _ in range(2):
        assert replies.once("a", lambda: done.append("x")) is None
    assert done == ["x"]


def test_what_was_refused_may_be_asked_anew() -> None:
    replies, count = Replies(2), Counter()
    with pytest.raises(NotFound):
        replies.once("a", count.refuse)
    assert replies.once("a", count) == 1


def test_a_request_without_an_id_is_not_remembered() -> None:
    replies, count = Replies(2), Counter()
    assert [replies.once("", count) for _ in range(2)] == [1, 2]
    assert len(replies) == 0


def test_the_oldest_reply_makes_room() -> None:
    replies, count = Replies(2), Counter()
    for request_id in ("a", "b", "c"):
        replies.once(request_id, count)
    assert len(replies) == 2
    assert [replies.once(request_id, count) for request_id in ("b", "c", "a")] == [2, 3, 4]
