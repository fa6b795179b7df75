"""Which machines there are, what each one does, and how one reaches another."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

LOOPBACK = "127.0.0.1"
#: Where a database host has noted who is the primary.
RECORD = "/etc/shipshape/postgresql/primary"
GROUPS = ("proxy", "app", "database")


class UnknownPrimary(ValueError):
    """What the database hosts say of their primary leads nowhere; the message says why."""


def elect(records: Mapping[str, str], members: Sequence[str]) -> tuple[str, int]:
    """(the primary, the number of promotions so far) from what each database host has noted (`NAME PROMOTIONS`).

    The note of the latest promotion holds; a host that was away meanwhile has an older one. Before the first run there
    is none, and the first of the group is the primary.
    """
    latest: tuple[int, str, str] | None = None
    for host, record in records.items():
        words = record.split()
        if not words:
            continue
        if len(words) != 2 or not words[1].isdigit():
            raise UnknownPrimary(f"{host} has {RECORD} with {record!r} in it; it has to be: NAME NUMBER")
        note = (int(words[1]), words[0], host)
        if latest is None or note[0] > latest[0]:
            latest = note
        elif note[0] == latest[0] and note[1] != latest[1]:
            raise UnknownPrimary(
                f"{host} and {latest[2]} do not agree on who is the primary: {note[1]} or {latest[1]} (promotion "
                f"{note[0]}). Write the right one into {RECORD} on both: NAME {note[0] + 1}"
            )
    if latest is None:
        return (members[0] if members else "", 0)
    if latest[1] not in members:
        raise UnknownPrimary(
            f"{latest[2]} says that the databases are on {latest[1]} ({RECORD}), which is not in group `database`: "
            f"{', '.join(members)}. Put it back, promote another one before it goes (playbooks/promote.yml), or, if it "
            f"was renamed, write its new name there: NAME {latest[0] + 1}"
        )
    return latest[1], latest[0]


@dataclass(frozen=True)
class Topology:
    """The hosts in each group, and the address at which other hosts of the inventory reach each."""

    proxy: tuple[str, ...] = ()
    app: tuple[str, ...] = ()
    database: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)
    #: Who has the databases, and how often that was changed by a promotion; the database hosts know it.
    primary: str = ""
    promotions: int = 0

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
