"""Whether the instances of Redis fit into a host's memory."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils.redis_plan import shortage


def redis_shortage(instances: Sequence[Mapping[str, Any]], memory_mb: int, percent: int) -> str:
    """Why they do not fit; nothing when they do."""
    return str(shortage(instances, int(memory_mb), int(percent)))


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"redis_shortage": redis_shortage}
