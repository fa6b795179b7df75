"""What PgBouncer is told of the databases whose apps come by way of it."""

from __future__ import annotations

from .names import host_network
from .plan_common import Apps, Row, with_database
from .plan_postgresql import database_role
from .topology import LOOPBACK, Topology

#: Where PgBouncer listens unless the inventory says otherwise (pgbouncer_port).
PGBOUNCER_PORT = 6432


def inputs(apps: Apps, topology: Topology, host: str) -> Row:
    """The databases whose apps come by way of PgBouncer, each with who may come from where."""
    pools: list[Row] = []
    remote: set[str] = set()
    for name, app in with_database(apps).items():
        if not app["database"].get("pool") or host not in topology.database:
            continue
        role, shared = database_role(name, app), app["database"].get("in")
        sources = [topology.path(host, server) for server in topology.app]
        pool: Row = {"name": name, "database": shared or role, "role": role, "size": int(app["database"]["pool"])}
        if shared:
            # A pool is known by its database: the second one in the same has a name of its own.
            pool["entry"] = role
        pool["addresses"] = [host_network(address) for address in sources if address != LOOPBACK]
        if password := app["database"].get("password"):
            pool["password"] = password
        pools.append(pool)
        remote.update(source for source in sources if source != LOOPBACK)
    return {
        "pgbouncer_pools": pools,
        "pgbouncer_listen_addresses": [LOOPBACK] + ([topology.addresses[host]] if remote else []),
    }
