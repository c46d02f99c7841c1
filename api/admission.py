"""Who may come in: handshakes a second, and sockets per principal, per address and in all."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from ipaddress import ip_address, ip_network

from starlette.requests import HTTPConnection

from api.auth import ROLES, Principal
from api.connection_table import spare_descriptors
from api.problems import TooMany
from api.rates import Rates, network_of
from api.settings import Settings
from api.websocket_protocol import FleetSocket
from fleet.occupancy import Occupancy

MAX_ADDRESSES = 100_000
RETRY_S = 5.0


class Admission:
    """Counts what is open in this process, exactly: a socket leaves once, however it ends. What is open at
    other doors is counted with it as it was last heard. Bound: the table of rates forgets the address that
    was silent longest; the rest is as large as the open sockets."""

    def __init__(self, settings: Settings) -> None:
        self._most = min(settings.max_sockets, spare_descriptors())
        self._most_per_principal = settings.max_sockets_per_principal
        self._most_per_address = settings.max_sockets_per_address
        self._settings = settings
        per_s = settings.max_handshakes_per_s
        self._rates = Rates(per_s, max(1.0, per_s), MAX_ADDRESSES)
        self._places: dict[FleetSocket, tuple[str, str]] = {}
        self._of_principal: Counter[str] = Counter()
        self._of_address: Counter[str] = Counter()
        self.elsewhere = Occupancy()

    def __len__(self) -> int:
        return len(self._places)

    def sockets(self) -> list[FleetSocket]:
        return list(self._places)

    def held(self, count: int) -> Occupancy:
        """The largest holders, at most `count` of each kind; who is not limited is not among them."""
        return Occupancy(self._of_principal, self._of_address).largest(count)

    def knock(self, address: str, now: float) -> None:
        """Before anything is looked at. Raises TooMany for an address that knocks too often or holds too
        much."""
        if len(self._places) >= self._most:
            raise TooMany("this server has as many sockets as it takes", "sockets", RETRY_S)
        if not address:
            return
        wait_s = self._rates.take(address, now)
        if wait_s > 0:
            raise TooMany("too many handshakes a second from this address", "handshakes", wait_s)
        held = self._of_address[address] + self.elsewhere.addresses.get(address, 0)
        if held >= self._most_per_address:
            raise TooMany(
                f"this address has {self._most_per_address} sockets open", "address_sockets", RETRY_S
            )

    def enter(self, socket: FleetSocket, principal: Principal, address: str) -> None:
        """Raises TooMany; operators and admins may open as many as they like."""
        name = "" if principal.level >= ROLES["operator"] else principal.key_id or principal.subject
        held = self._of_principal[name] + self.elsewhere.principals.get(name, 0)
        if name and held >= self._most_per_principal:
            raise TooMany(
                f"this token's owner has {self._most_per_principal} sockets open",
                "principal_sockets",
                RETRY_S,
            )
        self._places[socket] = (name, address)
        _more(self._of_principal, name)
        _more(self._of_address, address)

    def leave(self, socket: FleetSocket) -> None:
        place = self._places.pop(socket, None)
        if place is not None:
            _less(self._of_principal, place[0])
            _less(self._of_address, place[1])

    def address_of(self, connection: HTTPConnection) -> str:
        """Of the peer itself; a header is believed from a trusted proxy only (see `trusted_proxies`). Empty
        for one that is not limited."""
        peer = connection.client.host if connection.client else ""
        return network_of(peer) if peer and self._settings.bounds(peer) else ""


def _more(counts: Counter[str], name: str) -> None:
    if name:
        counts[name] += 1


def _less(counts: Counter[str], name: str) -> None:
    if name:
        counts[name] -= 1
        if not counts[name]:
            del counts[name]


def unbounded_peers(settings: Settings) -> Callable[[str], bool]:
    """Whose connections are not for one client: a proxy's, which stands for many, and this machine's own
    unless the settings bound it."""
    networks = [ip_network(proxy) for proxy in settings.trusted_proxies]

    def unbounded(peer: str) -> bool:
        return not settings.bounds(peer) or any(
            ip_address(peer.partition("%")[0]) in network for network in networks
        )

    return unbounded
