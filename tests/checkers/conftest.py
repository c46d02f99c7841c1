"""What the tests of the checkers share."""

from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def resting_collector() -> Iterator[None]:
    """A world is one large cycle: while many are made, the collector would walk all that tests import."""
    gc.disable()
    yield
    gc.enable()
