"""The table of robot API keys as this process holds it: a key is checked without a call."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial

import msgspec

from api.background import Background
from api.ports import Fleet
from fleet.errors import FleetError
from fleet.events import KEYS
from fleet.feed import Page
from fleet.keys import KeyRecord, digest_of, well_formed

log = logging.getLogger("fleetcast.keys")
_decode = msgspec.json.Decoder(KeyRecord).decode
PAUSE_S = 0.2
MIN_SWEEP = 1_024


class KeyRing:
    """Follows the `keys` feed: the whole table once, then its changes. A hole, as after a restart of the
    registry, means the table again. Bound: the live keys, which the registry bounds, and at most three
    times as many dead ones, or 3,000: these stay for a while, to tell an older word on them from the last."""

    def __init__(self, on_revoked: Callable[[str], None], on_shortened: Callable[[str, float], None]) -> None:
        self.ready = asyncio.Event()
        self._on_revoked = on_revoked
        self._on_shortened = on_shortened
        self._by_digest: dict[str, KeyRecord] = {}
        self._dead: set[str] = set()  # digests, at the sweep before
        self._sweep_at = MIN_SWEEP
        self._background = Background()

    def __len__(self) -> int:
        return len(self._by_digest)

    def find(self, secret: str, now_s: float) -> KeyRecord | None:
        """The key, unless it is unknown, revoked or expired at `now_s` (since 1970). A dictionary of
        hashes gives away nothing by its timing that would help to guess 256 bits."""
        record = self._by_digest.get(digest_of(secret)) if well_formed(secret) else None
        return record if record is not None and record.live(now_s) else None

    def start(self, fleet: Fleet) -> None:
        self._background.start(partial(self._follow, fleet))

    async def stop(self) -> None:
        await self._background.stop()

    async def _follow(self, fleet: Fleet) -> None:
        place: Page | None = None
        while True:
            try:
                if place is None:
                    place = await self._take_all(fleet)
                page = await fleet.read(KEYS, place.epoch, place.offset, fleet.limits.long_poll_ms)
            except FleetError as error:
                log.warning("the key table is not heard of: %s", error.detail)
                await asyncio.sleep(PAUSE_S)
                continue
            for event in page.events:
                self.put(_decode(event))
            place = page if page.recovered else None

    async def _take_all(self, fleet: Fleet) -> Page:
        """The place first, the table after it: changes in between are then seen twice, never missed. A key
        that is not in the table any more is as good as revoked."""
        before = set(self._by_digest)  # what is issued while we wait is not gone
        place = await fleet.read(KEYS, "", 0, 0)
        records = await fleet.keys()
        gone = before - {record.digest for record in records}
        for digest in gone:
            self._on_revoked(self._by_digest.pop(digest).key.key_id)
        for record in records:
            self.put(record)
        self.ready.set()
        return place

    def put(self, record: KeyRecord) -> None:
        """The end of a key only ever comes nearer: an older word on it does not bring it back."""
        known = self._by_digest.get(record.digest)
        if known is not None and known.ends_s < record.ends_s:
            return
        if known is None and len(self._by_digest) >= self._sweep_at:
            self._sweep(time.time())
        self._by_digest[record.digest] = record
        if record.key.revoked_at is not None:
            self._on_revoked(record.key.key_id)
        elif known is not None and record.ends_s < known.ends_s:
            self._on_shortened(record.key.key_id, record.ends_s)

    def _sweep(self, now_s: float) -> None:
        """Forgets who was dead at the sweep before already."""
        dead = {digest for digest, record in self._by_digest.items() if not record.live(now_s)}
        for digest in dead & self._dead:
            del self._by_digest[digest]
        self._dead = dead - self._dead
        self._sweep_at = max(MIN_SWEEP, 2 * len(self._by_digest))
