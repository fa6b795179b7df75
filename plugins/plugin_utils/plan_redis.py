"""The instances of Redis: what each is made of, and where an app finds its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .names import host_network, socket_address
from .redis_fields import MEMORY, USES, port_of, use_of
from .topology import LOOPBACK, Topology

Row = dict[str, Any]
Instances = Mapping[str, Mapping[str, Any]]


def login(app: str) -> str:
    """What an app's password for Redis is called among those of the database roles."""
    return f"redis:{app}"


def instances(redis: Instances, wishes: Mapping[str, Sequence[str]], topology: Topology, host: str) -> list[Row]:
    """Each instance with the apps that may log in (`wishes`: what each asks for), and where it listens for them."""
    sources = [topology.path(host, server) for server in topology.app]
    remote = [address for address in sources if address != LOOPBACK]
    rows: list[Row] = []
    for name, said in redis.items():
        users = [app for app, wanted in wishes.items() if name in wanted]
        outside = bool(users and remote)
        uses = USES[use_of(name, said)]
        rows.append(
            {
                "name": name,
                "port": port_of(name, said),
                "users": users,
                "memory": str(said.get("memory") or MEMORY),
                **{key: str(said.get(key) or default) for key, default in uses.items()},
                "addresses": [LOOPBACK] + ([topology.addresses[host]] if outside else []),
                "sources": [host_network(address) for address in remote] if outside else [],
            }
        )
    return rows


def urls(app: str, wanted: Sequence[str], redis: Instances, address: str, password: str) -> dict[str, str]:
    """A URL for each instance an app uses; the first of them is under the name that everybody looks for, too."""
    found: dict[str, str] = {}
    for name in wanted:
        where = socket_address(address, port_of(name, redis[name]))
        url = f"redis://{app}:{quote(password, safe='')}@{where}/0"
        found.setdefault("REDIS_URL", url)
        found[f"REDIS_{name.upper().replace('-', '_')}_URL"] = url
    return found
