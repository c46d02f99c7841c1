"""Query parameters: decoded and checked in one go, as bodies are."""

from __future__ import annotations

from typing import Annotated, TypeVar

import msgspec
from msgspec import Meta, UnsetType
from starlette.requests import Request

from api.problems import BadRequest

Model = TypeVar("Model", bound=msgspec.Struct)

# The pattern is only told: another cursor is refused with 400, since no page gave it, where the rest is 422.
_PLACE = {"maxLength": 18, "pattern": "^0*[1-9][0-9]*$"}
Cursor = Annotated[str, Meta(description="`next_cursor` of the page before", extra_json_schema=_PLACE)]
PageSize = Annotated[int, Meta(ge=1, le=500)]


def read_query(request: Request, model: type[Model]) -> Model:
    """Raises BadRequest 422 that names the parameter. Names that `model` does not have are ignored."""
    named: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if name in named and name in model.__struct_fields__:
            raise BadRequest(422, f"{name} was given more than once", "bad_parameter")
        named[name] = value
    try:
        return msgspec.convert(named, model, strict=False)
    except msgspec.ValidationError as error:
        raise BadRequest(422, f"the query: {error}", "bad_parameter") from None


def given(value: str | UnsetType) -> str | None:
    """An empty text is one that was given: nothing has it."""
    return None if isinstance(value, UnsetType) else value


def place_of(cursor: str | UnsetType) -> int:
    """What a `next_cursor` names; 0 without one. Raises BadRequest 400."""
    if isinstance(cursor, UnsetType):
        return 0
    if cursor.isascii() and cursor.isdigit() and len(cursor) <= 18 and int(cursor) > 0:
        return int(cursor)
    detail = "this cursor is none of ours: send the next_cursor of the page before, as it is"
    raise BadRequest(400, detail, "bad_cursor")


def cursor_of(place: int) -> str | None:
    """The `next_cursor` of a page; None after the last."""
    return str(place) if place else None
