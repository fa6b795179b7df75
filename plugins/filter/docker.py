"""Filters of the docker role."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.docker_firewall import restore


def docker_firewall(ports: Sequence[Mapping[str, Any]], version: int) -> str:
    """The declared ports as a file for iptables-restore (4) or ip6tables-restore (6)."""
    try:
        text: str = restore(ports, version)
        return text
    except ValueError as error:
        raise AnsibleFilterError(
            f"docker_published_ports (from hardening_firewall_rules and the apps): {error}; "
            "`sources` takes addresses and networks, such as 203.0.113.7 or 10.0.0.0/24"
        ) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"docker_firewall": docker_firewall}
