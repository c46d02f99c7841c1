"""The description of the HTTP surface as OpenAPI 3.1. Each handler has its own beside it; schemas come from
the structs that it decodes and answers with, so that what is said and what is done cannot part."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from copy import copy
from http import HTTPStatus
from inspect import cleandoc
from typing import Any

import msgspec
from fastapi import APIRouter, FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from starlette.convertors import StringConvertor, register_url_convertor
from starlette.exceptions import HTTPException
from starlette.routing import Match, Route, request_response
from starlette.types import Receive, Scope, Send

from api.idempotency import REPLAYED, IdempotencyHeaders
from api.problems import Problem
from fleet.messages import Id

PREFIX = "/api/v1"
REF = "#/components/schemas/{name}"
ABOUT = """Times are RFC 3339 UTC with milliseconds and `Z`; durations carry their unit in their name.
The WebSocket endpoints under `/api/v1/ws` are described in docs/api.md."""
OF_BODIES = {400, 408, 413, 415, 422}
SECURITY_SCHEMES = {
    "bearer": {
        "type": "http",
        "scheme": "bearer",
        "description": "A JWT of a person (role viewer, operator or admin), or a robot's key.",
    },
    "robot_key": {"type": "apiKey", "in": "header", "name": "X-Api-Key", "description": "A robot's key."},
    "token": {
        "type": "apiKey",
        "in": "query",
        "name": "token",
        "description": "The same JWT or key, where headers cannot be set.",
    },
}
REPLAY = {
    REPLAYED: {
        "description": "There if this is the answer to an earlier request with the same key.",
        "schema": {"const": "true"},
    }
}
RETRY_AFTER = {"Retry-After": {"required": True, "schema": {"type": "integer", "minimum": 1}}}
HEADERS = {
    401: {"WWW-Authenticate": {"required": True, "schema": {"const": "Bearer"}}},
    429: RETRY_AFTER,
    503: RETRY_AFTER,
}
Types = Any  # a type, or a tuple of types that may stand in one place


class Operation(APIRoute):
    """Described as FastAPI does it, served as Starlette does it: handlers take the request and decode it
    themselves, and FastAPI's own preparations would cost half as much again as a whole heartbeat."""

    def __init__(self, path: str, endpoint: Callable[..., Any], **settings: Any) -> None:
        self.methods: set[str]
        self.described: dict[str, Any] = settings.pop("openapi_extra")
        super().__init__(path, endpoint, **settings)
        self.app = request_response(endpoint)
        self.methods |= {"HEAD"} if "GET" in self.methods else set()

    matches = Route.matches

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in self.methods:
            raise HTTPException(405, headers={"Allow": ", ".join(_allowed(scope))})
        await self.app(scope, receive, send)


def _allowed(scope: Scope) -> list[str]:
    """Of all operations on this path: each is a route of its own."""
    operations = (route for route in scope["app"].routes if isinstance(route, Operation))
    here = [operation for operation in operations if operation.matches(scope)[0] is not Match.NONE]
    return sorted({method for operation in here for method in operation.methods})


def id_except(name: str, *words: str) -> None:
    """Makes `{...:name}` match any id but `words`, which are routes beside it: a request for one of these
    with a wrong method is then refused as such, not taken for an id. `words` stay ids in longer paths."""
    regex = rf"(?!(?:{'|'.join(words)})$)[^/]+"
    register_url_convertor(name, type(name, (StringConvertor,), {"regex": regex})())


def router(name: str, prefix: str = "") -> APIRouter:
    return APIRouter(
        prefix=PREFIX + prefix,
        tags=[name],
        route_class=Operation,
        generate_unique_id_function=lambda route: f"{name}_{route.name}",
    )


def operation(
    answers: Mapping[int, Types],
    *,
    role: str | None = "viewer",
    body: Types = None,
    body_required: bool = True,
    query: Any = None,
    keyed: bool = False,
    refused: tuple[int, ...] = (),
    links: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """`openapi_extra` of one route. `role` is the least that may call it, "robot" the robot itself or an
    operator, None anybody. `keyed`: it hears an `Idempotency-Key`. Statuses that follow from `role`,
    `body`, `query` and `keyed` need not be in `refused`.
    `links` lead from the first of `answers` to what may be done with it."""
    schemas: dict[str, Any] = {}
    told = _refusals(role, body is not None, query is not None, keyed)
    refusals = {*refused, *told} - answers.keys()
    responses = {str(status): _answer(status, types, schemas) for status, types in answers.items()}
    for response in responses.values() if keyed else ():
        response["headers"] = REPLAY
    if links:
        next(iter(responses.values()))["links"] = links
    in_query = _parameters("query", query, schemas) if query else []
    in_headers = _parameters("header", IdempotencyHeaders, schemas) if keyed else []
    return {
        "parameters": in_query + in_headers,
        "responses": responses | {str(s): _problem(s, schemas) for s in sorted(refusals)},
        "security": _security(role),
        "schemas": schemas,
    } | ({"requestBody": _request_body(body, body_required, schemas)} if body is not None else {})


def link(operation_id: str, body: dict[str, str] | None = None, **parameters: str) -> dict[str, Any]:
    """`parameters` and the fields of `body` are runtime expressions, such as `$response.body#/job_id`."""
    return {"operationId": operation_id, "parameters": parameters} | ({"requestBody": body} if body else {})


def _refusals(role: str | None, body: bool, query: bool, keyed: bool) -> set[int]:
    by_role = {None: set(), "viewer": {401, 429}}.get(role, {401, 403, 429})
    of_parameters = ({422} if query else set()) | ({400, 422} if keyed else set())
    return by_role | (OF_BODIES if body else set()) | of_parameters


def _security(role: str | None) -> list[dict[str, list[str]]]:
    """A robot's key watches, and acts as its own robot; it has no role beyond."""
    if role is None:
        return []
    roles = ["operator" if role == "robot" else role]
    people: list[dict[str, list[str]]] = [{"bearer": roles}, {"token": roles}]
    return people if role in ("operator", "admin") else [*people, {"robot_key": []}]


def _request_body(types: Types, required: bool, schemas: dict[str, Any]) -> dict[str, Any]:
    return {"required": required, "content": {"application/json": {"schema": _schema(types, schemas)}}}


def _answer(status: int, types: Types, schemas: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"schema": _schema(types, schemas, answered=True)}}
    return {"description": HTTPStatus(status).phrase, "content": content}


def _problem(status: int, schemas: dict[str, Any]) -> dict[str, Any]:
    content = {"application/problem+json": {"schema": _schema(Problem, schemas, answered=True)}}
    described = {"description": HTTPStatus(status).phrase, "content": content}
    return described | ({"headers": HEADERS[status]} if status in HEADERS else {})


def _schema(types: Types, schemas: dict[str, Any], answered: bool = False) -> dict[str, Any]:
    """A reference or a plain schema; what it refers to goes into `schemas`."""
    several = types if isinstance(types, tuple) else (types,)
    tops, components = msgspec.json.schema_components(several, ref_template=REF)
    schemas |= {name: _always_whole(c) if answered else c for name, c in components.items()}
    [*anyone] = tops
    return anyone[0] if len(anyone) == 1 else {"anyOf": anyone}


def _always_whole(schema: dict[str, Any]) -> dict[str, Any]:
    """Defaults serve who sends. What we answer has every field, but for those that may be unset, which
    alone have neither a default nor must be there."""
    if "properties" not in schema:
        return schema
    fields = schema["properties"]
    whole = {name: {k: v for k, v in field.items() if k != "default"} for name, field in fields.items()}
    required = [name for name, field in fields.items() if "default" in field or name in schema["required"]]
    return schema | {"properties": whole, "required": required}


def _parameters(place: str, model: Any, schemas: dict[str, Any]) -> list[dict[str, Any]]:
    found: dict[str, Any] = {}
    _schema(model, found)
    own = found.pop(model.__name__)
    schemas |= found
    return [
        {"name": name, "in": place, "required": name in own["required"], "schema": schema}
        for name, schema in own["properties"].items()
    ]


def describe(app: FastAPI) -> dict[str, Any]:
    routes = [_without_head(route) for route in app.routes if isinstance(route, Operation)]
    document = get_openapi(title="fleetcast", version=app.version, description=ABOUT, routes=routes)
    schemas: dict[str, Any] = {}
    for route in routes:
        described = _on_its_path(route)
        for name, schema in described.pop("schemas").items():
            assert schemas.setdefault(name, schema) == schema, f"two schemas are called {name}"
        for method in route.methods:
            document["paths"][route.path_format][method.lower()] |= described
    components = {"schemas": dict(sorted(schemas.items())), "securitySchemes": SECURITY_SCHEMES}
    whole: dict[str, Any] = _tidied(document | {"components": components})
    return whole


def _without_head(route: Operation) -> Operation:
    """Wherever GET is there is HEAD: that needs no words."""
    plain = copy(route)
    plain.methods = route.methods - {"HEAD"}
    return plain


def _on_its_path(route: Operation) -> dict[str, Any]:
    [of_id], _ = msgspec.json.schema_components([Id])
    in_path = [
        {"name": name, "in": "path", "required": True, "schema": of_id} for name in route.param_convertors
    ]
    return route.described | {"parameters": in_path + route.described["parameters"]}


def _tidied(value: Any, key: str = "") -> Any:
    """Patterns as JSON Schema wants them, where Python's `\\Z` is `$`; docstrings without their margin."""
    if isinstance(value, dict):
        return {name: _tidied(inner, name) for name, inner in value.items()}
    if isinstance(value, list):
        return [_tidied(item) for item in value]
    if key == "pattern":
        return value.replace(r"\Z", "$")
    return cleandoc(value) if key == "description" else value
