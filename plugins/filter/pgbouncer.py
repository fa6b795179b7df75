"""Whether PgBouncer's pools fit into the server's connections."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils.pgbouncer_plan import shortage


def pgbouncer_shortage(pools: Sequence[Mapping[str, Any]], reserve: int, connections: int) -> str:
    """Why they do not fit; nothing when they do, or when it is not known how many connections there are."""
    return str(shortage(pools, int(reserve), int(connections))) if int(connections) else ""


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"pgbouncer_shortage": pgbouncer_shortage}
