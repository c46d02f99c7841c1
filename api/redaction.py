"""Keeps tokens out of every log line of this process, whoever writes it."""

from __future__ import annotations

import logging
import re

_SECRETS = re.compile(
    r"(?P<name>\btoken(?:=|%3D|['\"]?\s*[:=]\s*['\"]?)|\bauthorization['\"]?\s*[:=,]\s*b?['\"]?(?:bearer\s+)?"
    r"|\bbearer\s+|\bx-api-key['\"]?\s*[:=,]\s*b?['\"]?)[^\s&'\"]+"
    r"|\bcrpa_[A-Za-z0-9_]+|\beyJ[A-Za-z0-9_.-]{10,}",
    re.IGNORECASE,
)


def redact(text: str) -> str:
    return _SECRETS.sub(lambda match: (match["name"] or "") + "[redacted]", text)


class RedactedRecord(logging.LogRecord):
    """A handler cannot see what this does not show: the message comes out redacted, whatever the
    logger, the level or the formatter."""

    def getMessage(self) -> str:
        return redact(super().getMessage())


def install() -> None:
    logging.setLogRecordFactory(RedactedRecord)
