"""Robots, keys and deletions as documents of the registry's store, and back."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence

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
    """What a registry finds when it is opened; `deletions` are requests that deleted robots, with when."""

    robots: list[RobotRecord]
    keys: list[KeyRecord]
    deletions: list[tuple[int, str]]


def registered(documents: Sequence[Document]) -> Registered:
    kinds: dict[str, list[Document]] = {ROBOT: [], KEY: [], DELETION: []}
    for document in documents:
        kinds[document.kind].append(document)
    return Registered(
        [_robot(document.data or b"") for document in kinds[ROBOT]],
        [_key(document.data or b"") for document in kinds[KEY]],
        [(int(document.data or b"0"), document.id) for document in kinds[DELETION]],
    )


class Deletions:
    """Requests that deleted a robot, as long as somebody may repeat them: `REPEATED_S`."""

    def __init__(self, known: Iterable[tuple[int, str]] = ()) -> None:
        self._known = deque(sorted(known))  # since 1970, the oldest first
        self._fresh: list[Document] = []

    def __iter__(self) -> Iterator[str]:
        return (request_id for _, request_id in self._known)

    def add(self, request_id: str, wall_ns: int) -> None:
        self._known.append((wall_ns, request_id))
        self._fresh.append(Document(DELETION, request_id, str(wall_ns).encode()))

    def take_changes(self, wall_ns: int) -> list[Document]:
        """Since the last call: which came, and which nobody will repeat any more."""
        changes, self._fresh = self._fresh, []
        while self._known and self._known[0][0] <= wall_ns - REPEATED_S * SECOND:
            changes.append(Document(DELETION, self._known.popleft()[1], None))
        return changes


def changes(
    robots: RecordChanges, keys: Sequence[KeyRecord], forgotten_keys: Sequence[str]
) -> list[Document]:
    return [
        *(Document(ROBOT, record.spec.robot_id, encode(record)) for record in robots.changed),
        *(Document(ROBOT, robot_id, None) for robot_id in robots.deleted),
        *(Document(KEY, record.key.key_id, encode(record)) for record in keys),
        *(Document(KEY, key_id, None) for key_id in forgotten_keys),
    ]
