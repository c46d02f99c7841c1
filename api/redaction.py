"""Keeps tokens out of every log line of this process, whoever writes it."""

from __future__ import annotations

import logging
import re
import traceback
from typing import Any

# Values of query parameters that are no secrets. Everything else in a query goes: an allow-list does not
# fall for `%74oken=`.
_PLAIN = frozenset(
    {"interval", "environment", "limit", "offset", "cursor", "status", "robot_id", "partial", "since", "v"}
)
_QUERY = re.compile(r"(?P<name>[?&][^=&\s'\"]{0,64}=)[^&\s'\"]+")
_HEADER = re.compile(
    r"(?P<name>\b(?:authorization|x-api-key|cookie)['\"]?\s*[:=,]\s*(?:b?['\"])?)[^\r\n'\"]+", re.IGNORECASE
)
_SECRET = re.compile(
    r"(?P<name>\btoken(?:=|%3D|['\"]?\s*[:=]\s*['\"]?)|\bbearer\s+)[^\s&'\"]+"
    r"|\bcrpa_[A-Za-z0-9_]+|\beyJ[A-Za-z0-9_.-]{10,}",
    re.IGNORECASE,
)
HIDDEN = "[redacted]"


def redact(text: str) -> str:
    text = _QUERY.sub(_query, text)
    text = _HEADER.sub(lambda match: match["name"] + HIDDEN, text)
    return _SECRET.sub(lambda match: (match["name"] or "") + HIDDEN, text)


def _query(match: re.Match[str]) -> str:
    return match[0] if match["name"][1:-1] in _PLAIN else match["name"] + HIDDEN


class RedactedRecord(logging.LogRecord):
    """Redacted where it is made, arguments and traceback included, so that no handler or formatter can
    show more."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        if isinstance(self.args, tuple):
            self.args = tuple(redact(arg) if isinstance(arg, str) else arg for arg in self.args)
        if self.exc_info and self.exc_info[0]:
            self.exc_text = redact("".join(traceback.format_exception(*self.exc_info)).rstrip())

    def getMessage(self) -> str:
        return redact(super().getMessage())


def install() -> None:
    logging.setLogRecordFactory(RedactedRecord)
