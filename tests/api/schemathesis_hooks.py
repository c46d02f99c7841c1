"""What no JSON Schema can say, Schemathesis must be told."""

from __future__ import annotations

import itertools
import re
from datetime import UTC, datetime
from typing import Any

import schemathesis

PAUSE = "/api/v1/robots/{robot_id}/status"


_KEY = re.compile(r"[!-~]{1,255}")
_calls = itertools.count()


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: dict[str, Any]) -> None:
    """Each request means another thing, and is to have a key of its own."""
    key = (case.headers or {}).get("Idempotency-Key")
    if isinstance(key, str) and _KEY.fullmatch(key):
        case.headers["Idempotency-Key"] = f"{next(_calls)}-{key}"[:255]


@schemathesis.hook
def filter_body(context: Any, body: Any) -> bool:
    return _readable(body) and _ends_after_it_begins(body)


def _readable(body: Any) -> bool:
    """JSON Schema knows no difference between 1e19 and 10000000000000000000; the server takes the first and
    refuses the second, which others would read as another number."""
    if isinstance(body, dict):
        return all(_readable(inner) for inner in body.values())
    if isinstance(body, list):
        return all(_readable(inner) for inner in body)
    return not isinstance(body, int) or -(2**63) <= body < 2**63


def _ends_after_it_begins(body: Any) -> bool:
    """A robot's maintenance or drain has a note and an end in the future, and nothing else has."""
    if not isinstance(body, dict) or not (body.get("note") or body.get("until")) or "job_id" in body:
        return True
    if body.get("status") != "maintenance" and body.get("drain") is not True:
        return False
    try:
        return body.get("until") is None or datetime.fromisoformat(body["until"].upper()) > datetime.now(UTC)
    except (AttributeError, TypeError, ValueError):
        return True  # refused for what it is


@schemathesis.hook
def filter_case(context: Any, case: Any) -> bool:
    """Here again: the body of a case may be made from a part that no body was filtered by."""
    return case.operation.path != PAUSE or _ends_after_it_begins(case.body)
