"""The ports that containers may be reached on from outside, as rules for iptables-restore."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

CHAIN = "SHIPSHAPE-DOCKER"
#: What Docker calls the bridges of its networks; a `+` stands for any rest of the name.
BRIDGES = ("docker+", "br-+")


def sources(rule: Mapping[str, Any], version: int) -> list[str]:
    """Whom a rule lets in over IPv4 or IPv6; an empty text is everybody, an empty list nobody."""
    if not rule.get("sources"):
        return [""]
    networks = [ipaddress.ip_network(source, strict=False) for source in rule["sources"]]
    return [str(network) for network in networks if network.version == version]


def _passes(ports: Sequence[Mapping[str, Any]], version: int) -> Iterator[str]:
    for rule in ports:
        # The packet has the container's port and address already: what the outside asked for, conntrack remembers.
        asked = f"-m conntrack --ctstate DNAT --ctorigdstport {int(rule['port'])} --ctdir ORIGINAL"
        for source in sources(rule, version):
            yield f"{f'-s {source} ' if source else ''}-p {rule.get('protocol') or 'tcp'} {asked} -j RETURN"


def rules(ports: Sequence[Mapping[str, Any]], version: int) -> list[str]:
    """The rules of our chain in order. What they let pass goes back to Docker, which decides as ever."""
    return list(
        dict.fromkeys(
            [
                "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
                # What containers begin, among themselves or towards the outside, is not ours.
                *(f"-i {bridge} -j RETURN" for bridge in BRIDGES),
                *_passes(ports, version),
                # Whatever the bridge is called: a port that leads into a container was translated.
                "-m conntrack --ctstate DNAT -j DROP",
                # A neighbour on the network who sends to a container's own address.
                *(f"-o {bridge} -j DROP" for bridge in BRIDGES),
            ]
        )
    )


def restore(ports: Sequence[Mapping[str, Any]], version: int) -> str:
    """A file for `iptables-restore --noflush`, which replaces our chain in one step and touches no other."""
    lines = [f"-A {CHAIN} {rule}" for rule in rules(ports, version)]
    return "\n".join(["# Written by Shipshape.", "*filter", f":{CHAIN} - [0:0]", *lines, "COMMIT", ""])
