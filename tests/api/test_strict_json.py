"""JSON that may be read in two ways, against a plain reader that keeps every key and every digit."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api.problems import BadRequest
from api.strict_json import MAX_CONTAINERS_OF_LIST, MAX_DEPTH, bound, check, split

TEXT = st.text(alphabet=':"\\[]{},-0a\n☃', max_size=4)
SPACE = st.sampled_from(["", "", " ", "\n\t"])
ROUND = ["0", "-1", "10", "-0.0", "0e-0", "-0e1", "1e-05", "9223372036854775807", "-9223372036854775808"]
LONG = ["0.12345678901234567890123", "12345678901234567890.5", "12345678901234567890e1"]
UNSOUND = ["-0", "9223372036854775808", "-9223372036854775809", "99999999999999999999"]
NUMBER = st.sampled_from(ROUND + LONG + UNSOUND)


def escaped(text: str) -> str:
    return '"' + "".join(f"\\u{ord(letter):04X}" for letter in text) + '"'


STRING = st.builds(lambda text, how: how(text), TEXT, st.sampled_from([json.dumps, escaped]))


def listed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds(
        lambda space, items: f"[{space}" + f"{space},".join(items) + f"{space}]", SPACE, st.lists(inner)
    )


def keyed(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    pair = st.builds(lambda key, space, value: f"{key}{space}:{space}{value}", STRING, SPACE, inner)
    return st.builds(lambda pairs: "{" + ",".join(pairs) + "}", st.lists(pair, max_size=4))


JSON = st.recursive(
    STRING | NUMBER | st.just("null"), lambda inner: listed(inner) | keyed(inner), max_leaves=12
)


def ambiguous(text: str) -> bool:
    found = False

    def on_object(pairs: list[tuple[str, Any]]) -> None:
        nonlocal found
        found |= len(pairs) != len({key for key, _ in pairs})

    def on_integer(digits: str) -> None:
        nonlocal found
        found |= digits == "-0" or not -(2**63) <= int(digits) < 2**63

    json.loads(text, object_pairs_hook=on_object, parse_int=on_integer)
    return found


@settings(max_examples=500)
@given(JSON)
def test_what_a_plain_reader_finds_ambiguous_is_refused_and_nothing_else(text: str) -> None:
    if ambiguous(text):
        with pytest.raises(BadRequest):
            check(text.encode())
    else:
        check(text.encode())


def nested(kinds: str, depth: int) -> bytes:
    begins = {"[": "[", "{": '{"[":'}
    ends = {"[": "]", "{": "}"}
    order = (kinds * depth)[:depth]
    return ("".join(begins[k] for k in order) + "0" + "".join(ends[k] for k in reversed(order))).encode()


@pytest.mark.parametrize("kinds", ["[", "{", "[{", "{[["])
def test_lists_and_objects_count_alike_in_depth(kinds: str) -> None:
    check(nested(kinds, MAX_DEPTH + 1))
    with pytest.raises(BadRequest, match="64 deep"):
        check(nested(kinds, MAX_DEPTH + 2))


def test_a_wide_body_is_not_a_deep_one() -> None:
    check(b"[" + b'[],{"a":[]},' * 1_000 + b"0]")


def test_a_list_has_a_bound_on_all_that_its_items_hold() -> None:
    items = b"[" + b",".join([b"[" + b"[]," * 1_000 + b"0]"] * 300) + b"]"
    with pytest.raises(BadRequest, match=str(MAX_CONTAINERS_OF_LIST)):
        split(items, "items", 1_000)
    bound(b'"' + b"[" * (MAX_CONTAINERS_OF_LIST + 1) + b'"')


def test_the_items_of_a_list_come_as_they_were_written() -> None:
    assert split(b' [ 1.50 , {"a" : 1},"]" ] ', "items", 3) == [b"1.50", b'{"a" : 1}', b'"]"']
