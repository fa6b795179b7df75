"""What Redis is told of its instances and of who may log in, and where an app finds its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import quote

from .names import host_network, socket_address
from .plan_common import Apps, PlanError, Row, texts, with_process
from .plan_postgresql import database_host
from .redis_fields import MEMORY, USES, port_of, use_of
from .topology import LOOPBACK, Topology

Instances = Mapping[str, Mapping[str, Any]]


def redis_host(topology: Topology) -> str:
    """The one host that has Redis: that of the databases, or where there are none, the first that runs apps."""
    return database_host(topology) if topology.database or not topology.app else topology.app[0]


def redis_login(app: str) -> str:
    """What an app's password for Redis is called among those of the database roles."""
    return f"redis:{app}"


def inputs(apps: Apps, redis: Instances, topology: Topology, host: str) -> Row:
    """The instances of Redis on this host, and whether an app of it needs the package's own."""
    # As with the databases, what lets apps in is the same on a replica; site.yml runs it on the primary alone.
    here = bool(redis) and (host in topology.database or host == redis_host(topology))
    users = {name: texts(app.get("redis")) for name, app in with_process(apps).items()}
    asked_for = [package for app in apps.values() for package in texts(app.get("packages"))]
    return {
        "redis_instances": _instances(redis, users, topology, host) if here else [],
        "redis_keep_packaged": host in topology.app and bool({"redis", "redis-server"} & set(asked_for)),
    }


def _instances(redis: Instances, wishes: Mapping[str, Sequence[str]], topology: Topology, host: str) -> list[Row]:
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


def redis_urls(
    name: str,
    app: Mapping[str, Any],
    redis: Instances,
    topology: Topology,
    host: str,
    passwords: Mapping[str, str],
) -> dict[str, str]:
    """A URL for each instance an app uses; the first of them is under the name that everybody looks for, too."""
    if not app.get("redis"):
        return {}
    if redis_login(name) not in passwords:
        raise PlanError(f"the password of app {name} for Redis was not read before the app was planned")
    address = topology.path(host, redis_host(topology))
    password = quote(passwords[redis_login(name)], safe="")
    found: dict[str, str] = {}
    for instance in texts(app["redis"]):
        where = socket_address(address, port_of(instance, redis[instance]))
        url = f"redis://{name}:{password}@{where}/0"
        found.setdefault("REDIS_URL", url)
        found[f"REDIS_{instance.upper().replace('-', '_')}_URL"] = url
    return found
