"""The declared ports of one host: whom each lets in, and on which addresses its service may listen."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

Port = tuple[str, int]
ANY = "*"
_LOOPBACK = {"localhost": ("127.0.0.1", "::1")}


@dataclass(frozen=True)
class Declared:
    """One port. Without sources everybody may come, unless it is bound to the loopback only."""

    name: str
    protocol: str
    port: int
    sources: tuple[str, ...] = ()
    addresses: tuple[str, ...] = (ANY,)

    @property
    def key(self) -> Port:
        return self.protocol, self.port

    @property
    def inside(self) -> bool:
        """Whether it is for this host alone."""
        return all(is_loopback(address) for address in self.addresses)

    def admits(self, callers: Iterable[str]) -> bool:
        """Whether one of these addresses may connect."""
        if self.inside:
            return False
        networks = [ipaddress.ip_network(source, strict=False) for source in self.sources]
        return not networks or any(
            (address := ipaddress.ip_address(caller)).version == network.version and address in network
            for caller in callers
            for network in networks
        )

    @property
    def audience(self) -> str:
        if self.inside:
            return "for this host alone"
        return f"for {', '.join(self.sources)}" if self.sources else "for everybody"


def is_loopback(address: str) -> bool:
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback
    except ValueError:
        return address in _LOOPBACK


def declared(
    rules: Sequence[Mapping[str, Any]],
    listens: Sequence[Mapping[str, Any]] = (),
    bound: Mapping[str, Sequence[str]] | None = None,
) -> list[Declared]:
    """Every port of the firewall's rules and of the services; `bound` are the addresses that a service really has."""
    ports: list[Declared] = []
    for row in listens:
        addresses: list[str] = []
        for address in (bound or {}).get(row["name"]) or row["addresses"]:
            addresses += _LOOPBACK.get(address, (ANY if address in ("*", "0.0.0.0", "::") else address,))
        ports.append(_port(row, tuple(dict.fromkeys(addresses))))
    # A rule lets somebody in to a service; where that listens, the service declares.
    bound_to = {port.key: port.addresses for port in ports if not port.inside}
    for rule in rules:
        plain = _port(rule, (ANY,))
        ports.append(replace(plain, addresses=bound_to.get(plain.key, plain.addresses)))
    return ports


def _port(row: Mapping[str, Any], addresses: tuple[str, ...]) -> Declared:
    protocol = str(row.get("protocol") or "tcp")
    return Declared(str(row["name"]), protocol, int(row["port"]), tuple(row.get("sources") or ()), addresses)


def reachable(ports: Iterable[Declared], callers: Iterable[str] = ()) -> set[Port]:
    """The ports that somebody with these addresses may find open; a stranger has none of those that are listed."""
    callers = list(callers)
    return {port.key for port in ports if port.admits(callers)}


def text(port: Port) -> str:
    return f"{port[1]}/{port[0]}"
