"""What of a host is backed up beside its databases."""

from __future__ import annotations

from collections.abc import Sequence

from .plan_common import STATE_DIRECTORY, Apps, Row, with_process
from .topology import Topology


def paths(apps: Apps, topology: Topology, host: str, certificates: Sequence[Row]) -> list[str]:
    """What a host has that neither git nor a database has: passwords, certificates, what the apps have written."""
    found = ["/etc/shipshape"] + (["/etc/letsencrypt"] if certificates else [])
    if host in topology.app:
        found += [
            f"{STATE_DIRECTORY}/{name}"
            for name, app in with_process(apps).items()
            if app["type"] != "container" or app.get("volumes")
        ]
    return found
