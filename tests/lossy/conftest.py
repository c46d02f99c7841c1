"""One Ray for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lossy import cluster as clusters
from lossy.cluster import Cluster


@pytest.fixture(scope="session")
def cluster() -> Iterator[Cluster]:
    with clusters.cluster() as running:
        yield running
