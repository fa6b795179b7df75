"""Which machines there are, what each one does, and how one reaches another."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
GROUPS = ("proxy", "app", "database")


@dataclass(frozen=True)
class Topology:
    """The hosts in each group, and the address at which other hosts of the inventory reach each."""

    proxy: tuple[str, ...] = ()
    app: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)

    @property
    def machines(self) -> tuple[str, ...]:
        """Every host of the three groups once, in the order of the inventory."""
        return tuple(dict.fromkeys(self.proxy + self.app + self.database))

    def path(self, source: str, target: str) -> str:
        """The address at which `source` reaches `target`."""
        return LOOPBACK if source == target else self.addresses[target]

    def app_address(self, host: str, public: bool) -> str:
        """Where an app on `host` listens: beyond the loopback only when a proxy on another machine must reach it."""
        return LOOPBACK if not public or set(self.proxy) <= {host} else self.addresses[host]
