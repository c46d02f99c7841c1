"""Writes scenario.schema.json and summary.schema.json from the models: python docs/schemas.py"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from simulators.load.outcome import Outcome
from simulators.scenario import Scenario

DOCS = Path(__file__).parent


def pages() -> dict[str, str]:
    """By file name."""
    return {
        "scenario.schema.json": _page(Scenario.model_json_schema()),
        "summary.schema.json": _page(msgspec.json.schema(Outcome)),
    }


def _page(schema: dict[str, Any]) -> str:
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    return json.dumps(whole, indent=2) + "\n"


if __name__ == "__main__":
    for name, text in pages().items():
        (DOCS / name).write_text(text)
