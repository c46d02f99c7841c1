"""Query parameters: decoded and checked in one go, as bodies are."""

from __future__ import annotations

from typing import TypeVar

import msgspec
from msgspec import UnsetType
from starlette.requests import Request

from api.problems import BadRequest

Model = TypeVar("Model", bound=msgspec.Struct)


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
