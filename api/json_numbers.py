"""JSON knows one kind of number: to JavaScript or Lua 11.0 is 11, and to JSON Schema an integer."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

OWN_DATA = frozenset({"payload", "result"})  # kept as they came
EXACT = 2**53  # up to here a double holds every integer

Model = TypeVar("Model")


def decode_json(body: bytes, model: type[Model]) -> Model:
    """As msgspec decodes it, which wants integers without a fraction; only a body that this refuses is read
    once more, with its whole floats as integers, except in what is the client's own data."""
    try:
        return msgspec.json.decode(body, type=model)
    except msgspec.ValidationError as error:
        if "got `float`" not in str(error):
            raise
        return msgspec.convert(_whole(msgspec.json.decode(body)), model)


def _whole(value: Any) -> Any:
    if isinstance(value, float):
        return int(value) if value.is_integer() and abs(value) <= EXACT else value
    if isinstance(value, dict):
        return {key: inner if key in OWN_DATA else _whole(inner) for key, inner in value.items()}
    return [_whole(item) for item in value] if isinstance(value, list) else value
