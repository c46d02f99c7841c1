"""The network between a robot and the door: late, lossy, and now and then not there.

What is lost comes later, as TCP has it, and nothing overtakes what was said before. While the network is down
nothing leaves and nothing arrives; it does when it is up again.
"""

from __future__ import annotations

from simulators.draws import Draw, Rng, draw_from
from simulators.scenario import Network

RESEND_US = 200_000  # the first time; twice as long each time after (RFC 6298 at its least)
MOST_RESENDS = 6


class Weather:
    """Of one robot, in both directions. `arrives_us` is asked in order of time in each."""

    def __init__(self, network: Network, rng: Rng, now_us: int) -> None:
        self._latency: Draw = draw_from(network.latency, rng) if network.latency else lambda: 0.0
        self._loss = network.loss
        self._rng = rng
        self._up: Draw | None = None
        self._down: Draw | None = None
        self._last = [0, 0]  # of what left, and of what came
        self._from_us = self._until_us = 2**62  # when it is down next
        if network.flapping is not None:
            self._up = draw_from(network.flapping.up, rng)
            self._down = draw_from(network.flapping.down, rng)
            self._plan(now_us)

    def _plan(self, now_us: int) -> None:
        assert self._up is not None
        assert self._down is not None
        self._from_us = now_us + int(self._up() * 1e6)
        self._until_us = self._from_us + int(self._down() * 1e6)

    def arrives_us(self, now_us: int, inbound: bool) -> int:
        """When what is said now is heard at the other end."""
        while now_us >= self._until_us:
            self._plan(self._until_us)
        leaves_us = self._until_us if now_us >= self._from_us else now_us
        late_us = int(self._latency() * 1e6)
        resend_us = RESEND_US
        for _ in range(MOST_RESENDS):
            if not self._loss or self._rng.random() >= self._loss:
                break
            late_us += resend_us
            resend_us *= 2
        at_us = max(leaves_us + late_us, self._last[inbound])
        self._last[inbound] = at_us
        return at_us
