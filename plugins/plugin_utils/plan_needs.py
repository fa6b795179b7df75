"""What the apps of a host need of other hosts: their passwords, and that what they come by is there."""

from __future__ import annotations

from .plan_common import Apps, Row, with_database, with_process
from .plan_postgresql import database_host, database_role
from .plan_redis import redis_host, redis_login
from .topology import Topology

PASSWORD_DIRECTORY = "/etc/shipshape/postgresql"
REDIS_DIRECTORY = "/etc/shipshape/redis"


def logins(apps: Apps, topology: Topology, host: str) -> list[Row]:
    """What the apps of this host log in as, and the file on the database host that has the password."""
    if host not in topology.app:
        return []
    redis = [
        {"role": redis_login(name), "host": redis_host(topology), "path": f"{REDIS_DIRECTORY}/{name}.password"}
        for name, app in with_process(apps).items()
        if app.get("redis")
    ]
    return redis + [
        {
            "role": database_role(name, app),
            "host": database_host(topology),
            "path": f"{PASSWORD_DIRECTORY}/{database_role(name, app)}.password",
        }
        for name, app in with_database(apps).items()
        if not app["database"].get("password")
    ]


def needs(apps: Apps, topology: Topology, host: str) -> list[Row]:
    """The other hosts without which the apps of this one cannot go on to another release, each with what it `has`.

    Static apps need none. That the hosts of one app go on together is for the role of the apps to see to.
    """
    found: dict[str, list[str]] = {}
    for name, app in with_process(apps).items() if host in topology.app else ():
        if app.get("database") is not None:
            found.setdefault(database_host(topology), []).append(f"the database of {name}")
        if app.get("redis"):
            found.setdefault(redis_host(topology), []).append(f"Redis for {name}")
        for proxy in topology.proxy if app.get("domains") else ():
            found.setdefault(proxy, []).append(f"the proxy of {name}")
    return [{"host": other, "has": has} for other, has in found.items() if other != host]
