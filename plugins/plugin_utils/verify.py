"""Whether what is in force on a droplet is what was declared: one finding for each difference, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from . import verify_ports, verify_postgresql, verify_system
from .declared_ports import Declared
from .verify_finding import Finding

State = Mapping[str, Any]


@dataclass(frozen=True)
class Wanted:
    """What the inventory and the roles declare for one host."""

    ports: Sequence[Declared] = ()
    rules: Sequence[Mapping[str, Any]] = ()
    published: Sequence[Mapping[str, Any]] | None = None
    admins: Sequence[str] = ()
    sshd: Sequence[str] = ()
    sysctl: Mapping[str, Any] = field(default_factory=dict)
    upgrades: bool = True
    postgresql: Mapping[str, Any] | None = None


def judge(state: State, wanted: Wanted, now: datetime) -> list[Finding]:
    """All findings, the way in first."""
    return list(_all(state, wanted, now))


def _all(state: State, wanted: Wanted, now: datetime) -> Iterator[Finding]:
    yield from verify_system.sshd(state, wanted.sshd)
    yield from verify_system.sudo(state, wanted.admins)
    yield from verify_system.privileged_groups(state, wanted.admins)
    versions = (4, 6) if state["ipv6"] else (4,)
    for version in versions:
        yield from verify_ports.firewall(state, wanted.rules, version)
        if wanted.published is not None:
            yield from verify_ports.forwarding(state, wanted.published, version)
    yield from verify_ports.sockets(state, wanted.ports)
    yield from verify_system.sysctl(state, wanted.sysctl)
    yield from verify_system.upgrades(state, wanted.upgrades)
    yield from verify_system.audit(state)
    yield from verify_system.apparmor(state)
    yield from verify_system.certificates(state, now)
    yield from verify_postgresql.postgresql(state, wanted.postgresql)
    yield from verify_system.units(state)
