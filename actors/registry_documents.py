"""Robots, keys and deletions as documents of the registry's store, and back."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from actors.document_tables import Document
from fleet.events import encode
from fleet.keys import KeyRecord
from fleet.limits import SECOND
from fleet.robot_record import RecordChanges, RobotRecord

ROBOT, KEY, DELETION = "robot", "key", "deletion"
REPEATED_S = 3_600  # nobody repeats a request later

_robot = msgspec.json.Decoder(RobotRecord).decode
_key = msgspec.json.Decoder(KeyRecord).decode


class Registered(msgspec.Struct, frozen=True):
    """What a registry finds when it is opened; `deletions` are the ids of requests that deleted a robot."""

    robots: list[RobotRecord]
    keys: list[KeyRecord]
    deletions: list[str]


def registered(documents: Sequence[Document], wall_ns: int) -> Registered:
    kinds: dict[str, list[Document]] = {ROBOT: [], KEY: [], DELETION: []}
    for document in documents:
        kinds[document.kind].append(document)
    lately = [d.id for d in kinds[DELETION] if int(d.data or b"0") > wall_ns - REPEATED_S * SECOND]
    return Registered(
        [_robot(document.data or b"") for document in kinds[ROBOT]],
        [_key(document.data or b"") for document in kinds[KEY]],
        lately,
    )


def outdated(documents: Sequence[Document], found: Registered) -> list[Document]:
    """Deletions that nobody will repeat any more."""
    kept = set(found.deletions)
    return [Document(DELETION, d.id, None) for d in documents if d.kind == DELETION and d.id not in kept]


def changes(
    robots: RecordChanges, keys: Sequence[KeyRecord], forgotten_keys: Sequence[str]
) -> list[Document]:
    return [
        *(Document(ROBOT, record.spec.robot_id, encode(record)) for record in robots.changed),
        *(Document(ROBOT, robot_id, None) for robot_id in robots.deleted),
        *(Document(KEY, record.key.key_id, encode(record)) for record in keys),
        *(Document(KEY, key_id, None) for key_id in forgotten_keys),
    ]


def deletion(request_id: str, wall_ns: int) -> Document:
    return Document(DELETION, request_id, str(wall_ns).encode())
