"""The pages say what the code does."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config
from yaml import safe_load

from actors.local import LocalFleet
from api.app import make_app
from api.routers import websockets
from api.settings import Settings, load
from fleet.limits import Limits
from fleet.messages import FromRobot, ToRobot
from fleet.stream_messages import TYPES

ROOT = Path(__file__).parents[2]
API = (ROOT / "docs" / "api.md").read_text()


def test_the_page_of_state_machines_is_that_of_the_table() -> None:
    page = runpy.run_path(str(ROOT / "docs" / "state_machines.py"))["page"]()
    assert (ROOT / "docs" / "state-machines.md").read_text() == page, "run python docs/state_machines.py"


def test_the_schemas_are_those_of_the_models() -> None:
    pages = runpy.run_path(str(ROOT / "docs" / "schemas.py"))["pages"]()
    written = {name: (ROOT / "docs" / name).read_text() for name in pages}
    assert written == pages, "run python docs/schemas.py"


def test_every_setting_is_told() -> None:
    for field in Settings.model_fields.values():
        assert f"`{field.alias}`" in API


def test_every_message_of_the_robot_socket_is_told() -> None:
    for base in (FromRobot, ToRobot):
        for message in base.__subclasses__():
            assert f"`{message.__struct_config__.tag}`" in API


def test_every_message_beside_the_events_is_told() -> None:
    for name in TYPES.values():
        assert f"| `{name}` |" in API


async def test_every_route_is_told() -> None:
    fleet = LocalFleet(Limits())
    app = make_app(fleet, load(jwt_dev_mode=True))
    for route in app.routes:
        path = route.path_format.removeprefix("/api/v1")  # type: ignore[attr-defined]
        told = re.sub(r"\{\w+_id\}", "{id}", path)
        last = "/" + told.rsplit("/", 1)[-1]
        assert path in API or told in API or f"`{last}`" in API, path
    await fleet.close()


def test_every_stream_is_told() -> None:
    for path in websockets.routes:
        assert f"`{path.removeprefix('/api/v1/ws/')}`" in API


@pytest.mark.parametrize(
    "page",
    [
        "README.md",
        "docs/api.md",
        "docs/glossary.md",
        "docs/operations.md",
        "docs/queue-lab.md",
        "docs/state-machines.md",
    ],
)
def test_links_between_pages_lead_somewhere(page: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (ROOT / page).read_text()):
        assert target.startswith("http") or ((ROOT / page).parent / target).exists(), target


def test_the_cluster_file_is_one_that_ray_accepts() -> None:
    config = prepare_config(safe_load((ROOT / "ray_cluster.yaml").read_text()))
    validate_config(config)
    assert config["provider"]["type"] == "local"
