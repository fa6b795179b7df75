"""What PostgreSQL is told of the apps' databases, and where an app finds its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from ..module_utils.app_types import IMAGE_TYPES
from .names import database_name, host_network, socket_address
from .plan_common import Apps, PlanError, Row, texts, with_database
from .topology import LOOPBACK, Topology

POSTGRESQL_PORT = 5432
#: Where PostgreSQL's socket lies, which a container reaches where it cannot reach the host's loopback.
POSTGRESQL_SOCKETS = "/var/run/postgresql"


def database_host(topology: Topology) -> str:
    """The one host that apps connect to: the primary. Further hosts of the group have copies."""
    if not topology.database:
        raise PlanError("apps need a database, and group `database` has no host; put the droplet that holds it there")
    return topology.primary or topology.database[0]


def database_role(name: str, app: Mapping[str, Any]) -> str:
    """The role of an app, and the database of that name, unless the app has its schemas in another one."""
    return str(app["database"].get("name") or database_name(name))


def reader(role: str) -> str:
    """The role that may read what an app's role has."""
    return f"{role}_read"


def database_schemas(role: str, database: Mapping[str, Any]) -> list[str]:
    """The schemas of an app. In another's database it has one of its role's name, which its role finds by itself."""
    return list(dict.fromkeys([role] * ("in" in database) + texts(database.get("schemas"))))


def inputs(apps: Apps, topology: Topology, host: str) -> Row:
    """The databases of the apps with their roles, who may come from where, and what a host knows of its replicas."""
    users = with_database(apps)
    databases: dict[str, Row] = {}
    roles: list[Row] = []
    clients: list[Row] = []
    remote: set[str] = set()
    peers = len(topology.database) > 1 and host in topology.database
    # A replica lets in whom its primary does, so that nothing has to be opened when it is promoted.
    if users and database_host(topology) and host in topology.database:
        # First those that have a database, then those that have schemas in one of these.
        for name, app in sorted(users.items(), key=lambda user: "in" in user[1]["database"]):
            role, said = database_role(name, app), app["database"]
            database = str(said.get("in") or role)
            row = databases.setdefault(database, {"name": database, "owner": role, "extensions": []})
            row["extensions"] += [one for one in texts(said.get("extensions")) if one not in row["extensions"]]
            roles += _database_roles(role, said)
            if said.get("load"):
                row["load"] = str(said["load"])
            for table, kept in (said.get("partitions") or {}).items():
                row.setdefault("partitions", []).append(
                    {"table": table, "role": role, "by": str(kept["by"]), "ahead": int(kept.get("ahead") or 2)}
                    | ({"keep_months": int(kept["keep_months"])} if kept.get("keep_months") else {})
                )
            if schemas := database_schemas(role, said):
                row.setdefault("schemas", []).extend({"name": schema, "owner": role} for schema in schemas)
            if said.get("read_only"):
                row.setdefault("readers", []).append({"role": reader(role), "owner": role})
            sources = [topology.path(host, server) for server in topology.app]
            clients.append({"database": database, "role": role, "addresses": [host_network(a) for a in sources]})
            remote.update(source for source in sources if source != LOOPBACK)
    return {
        "postgresql_databases": list(databases.values()),
        "postgresql_roles": roles,
        "postgresql_clients": clients,
        "postgresql_listen_addresses": ["localhost"] + ([topology.addresses[host]] if remote or peers else []),
        "postgresql_replication": _replication(topology, host),
    }


def _database_roles(role: str, database: Mapping[str, Any]) -> list[Row]:
    """The role of an app, and the one that only reads."""
    row: Row = {"name": role, **({"password": database["password"]} if database.get("password") else {})}
    row.update((key, int(database[key])) for key in ("connection_limit",) if database.get(key))
    if not (read_only := database.get("read_only")):
        return [row]
    password = read_only.get("password") if isinstance(read_only, Mapping) else None
    return [row, {"name": reader(role), **({"password": password} if password else {})}]


def _replication(topology: Topology, host: str) -> Row:
    """What a database host has to know of the others."""
    if host not in topology.database:
        return {}
    primary = database_host(topology)
    # A database host that has always been alone needs no note, and may be given another name.
    noted = len(topology.database) > 1 or topology.promotions
    row: Row = {"name": host, "record": f"{primary} {topology.promotions}" if noted else ""}
    row["peers"] = [{"name": peer, "address": topology.addresses[peer]} for peer in topology.database if peer != host]
    return row | ({"primary": primary, "primary_address": topology.addresses[primary]} if host != primary else {})


def uses_socket(app: Mapping[str, Any], topology: Topology, host: str) -> bool:
    """Whether the app's database is on its own host: the loopback interface of a container is another one."""
    return app.get("database") is not None and database_host(topology) == host


def database_urls(
    app: Mapping[str, Any], topology: Topology, host: str, role: str, password: str, pooler: int
) -> dict[str, str]:
    """Where an app finds its database. What needs a session of its own goes past the pooler, by the second URL."""

    database = app["database"].get("in") or role

    def url(port: int) -> str:
        name = role if port == pooler else database
        where = f"{socket_address(topology.path(host, database_host(topology)), port)}/{name}"
        if app["type"] in IMAGE_TYPES and uses_socket(app, topology, host):
            where = f"/{name}?host={POSTGRESQL_SOCKETS}" + (f"&port={port}" if port != POSTGRESQL_PORT else "")
        return f"postgresql://{quote(role)}:{quote(password, safe='')}@{where}"

    if not app["database"].get("pool"):
        return {"DATABASE_URL": url(POSTGRESQL_PORT)}
    own = app.get("env") or {}
    # Whoever writes the one URL by hand means it for all that the app does.
    direct = {"DIRECT_DATABASE_URL": url(POSTGRESQL_PORT)} if "DATABASE_URL" not in own else {}
    return {"DATABASE_URL": url(pooler), **direct}
