"""A Ray of this process, with settings that hold for all of it."""

from __future__ import annotations

import logging
from typing import Any

import ray


def start_ray(namespace: str, object_store_memory: int | None = None, **system: Any) -> None:
    ray.init(
        num_cpus=2,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
        object_store_memory=object_store_memory,
        namespace=namespace,
        _system_config=system,
    )
