"""Writes scenario.schema.json from the model: python docs/scenario_schema.py"""

from __future__ import annotations

import json
from pathlib import Path

from simulators.scenario import Scenario

PAGE = Path(__file__).with_name("scenario.schema.json")


def page() -> str:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Scenario.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page())
