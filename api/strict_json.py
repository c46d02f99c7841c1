"""JSON that means the same to everybody (RFC 7493, I-JSON): what msgspec reads in silence and others read
otherwise is refused. Lists are bounded before their items are decoded."""

from __future__ import annotations

import json
import re
from functools import cache
from typing import Any

import msgspec

from api.problems import BadRequest

MAX_CONTAINERS = 50_000  # lists and objects of one body, or of one item of a list
MAX_CONTAINERS_OF_LIST = 200_000
MAX_DEPTH = 64  # of a payload or a result
MAX_INTEGER_DIGITS = 19  # of 2^63 - 1
NAMED_BYTES = 64 * 1024  # in a larger body the duplicate key is not searched for

_any = msgspec.json.Decoder().decode
_skip = msgspec.json.Decoder(msgspec.Raw).decode
_encode = msgspec.json.Encoder().encode
_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_RUN_OF_DIGITS = b"0" * MAX_INTEGER_DIGITS
_BRACKETS = bytes.maketrans(b"{}", b"[]")
_NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
_STRING = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_MINUS_ZERO = re.compile(rb"-0(?![\d.eE])")
_INTEGER = re.compile(rb"(?<![\d.eE+-])(?:-0|-?\d{19,})(?![\d.eE])")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def bound(body: bytes, most: int = MAX_CONTAINERS) -> None:
    """Before it is decoded: more lists and objects than can be made while others wait are refused with 422.
    Raises msgspec.DecodeError if it has so many and is no JSON."""
    if len(body) > most and _containers(body) > most:
        _skip(body)  # only where quotes are balanced can strings be taken out in linear time
        if _containers(_STRING.sub(b"", body)) > most:
            raise BadRequest(422, f"the body holds more than {most} lists and objects", "too_many")


def _containers(body: bytes) -> int:
    return body.count(b"[") + body.count(b"{")


def check(body: bytes) -> None:
    """Of a body that is JSON. Raises BadRequest 422 for duplicate keys; for numbers that other readers do not
    read as they are written: -0, and integers outside of 64 bits with a sign; and for a payload or result
    nested too deep, since what travels between processes is copied by recursion.

    A key that comes twice is lost when its object is decoded, and with it a colon. So the colons of the
    body and of what it decodes to are counted, both at the speed of memory, rather than keys.
    """
    if _encode(_any(body)).count(b":") != _colons(body):
        raise BadRequest(422, f"an object has the key {_duplicate(body)} twice", "duplicate_key")
    if (b"-0" in body and _MINUS_ZERO.search(body)) or _RUN_OF_DIGITS in body.translate(_DIGITS):
        _check_integers(_STRING.sub(b"", body))
    if _containers(body) > MAX_DEPTH:
        _check_depth(_STRING.sub(b"", body))


def _check_depth(body: bytes) -> None:
    """Of a body without its strings. Each round takes away the innermost level."""
    brackets = body.translate(_BRACKETS, _NO_BRACKETS)
    for _ in range(MAX_DEPTH + 1):  # the body itself is one
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise BadRequest(422, f"the body is nested more than {MAX_DEPTH} deep", "too_deep")


def _colons(body: bytes) -> int:
    """Those written as an escape included: decoding turns them into colons."""
    colons = body.count(b":")
    if b"\\u003" in body:
        escapes = body.replace(b"\\\\", b"")
        colons += escapes.count(b"\\u003a") + escapes.count(b"\\u003A")
    return colons


def _check_integers(body: bytes) -> None:
    """Of a body without its strings."""
    for found in _INTEGER.finditer(body):
        if found[0] == b"-0":
            raise BadRequest(422, "-0 is not read alike everywhere: send 0 or -0.0", "bad_number")
        if len(found[0]) > MAX_INTEGER_DIGITS + 1 or not -(2**63) <= int(found[0]) < 2**63:
            detail = "an integer is outside of -2^63 to 2^63 - 1: send it as a string"
            raise BadRequest(422, detail, "bad_number")


def _duplicate(body: bytes) -> str:
    class Found(Exception):
        pass

    def look(pairs: list[tuple[str, Any]]) -> None:
        seen: set[str] = set()
        for key, _ in pairs:
            if key in seen:
                raise Found(json.dumps(key[:64]))
            seen.add(key)

    try:
        json.loads(body if len(body) <= NAMED_BYTES else b"{}", object_pairs_hook=look)
    except Found as found:
        return str(found)
    except RecursionError:
        pass
    return "of a value"


def not_json(body: bytes, error: Exception) -> BadRequest:
    """400 that says why."""
    reason = str(error)
    if not body.strip(b" \t\r\n"):
        reason = "it is empty"
    elif body.startswith(b"\xef\xbb\xbf"):
        reason = "it begins with a byte order mark"
    elif not _is_utf8(body):
        reason = "it is not UTF-8"
    elif isinstance(error, RecursionError):
        reason = "it is nested too deep"
    elif _SURROGATE.search(body):
        reason += " (each \\ud800-\\udfff needs the other half of its pair)"
    return BadRequest(400, f"the body is not JSON: {reason}", "not_json")


def _is_utf8(body: bytes) -> bool:
    try:
        body.decode()
    except UnicodeDecodeError:
        return False
    return True


def split(body: bytes, what: str, most: int, least: int = 1) -> list[bytes]:
    """The items of a list, undecoded. Raises BadRequest: 400 if it is not JSON, 422 unless it is a list of
    `least` to `most` items; a longer one is not read to its end."""
    refusal = BadRequest(422, f"send a list of {least} to {most} {what}", "bad_list")
    try:
        items = msgspec.structs.astuple(msgspec.json.decode(body, type=_list_of(most)))
        bound(body, MAX_CONTAINERS_OF_LIST)
    except msgspec.ValidationError:
        raise refusal from None
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise not_json(body, error) from None
    found = [bytes(item) for item in items if item is not msgspec.UNSET]
    if len(found) < least:
        raise refusal
    return found


@cache
def _list_of(most: int) -> type[msgspec.Struct]:
    """msgspec builds a list whole before it looks at its length; a struct written as an array ends at the
    first field too many."""
    fields = [(f"item_{n}", msgspec.Raw, msgspec.UNSET) for n in range(most)]
    return msgspec.defstruct("ListOf", fields, array_like=True, forbid_unknown_fields=True)
