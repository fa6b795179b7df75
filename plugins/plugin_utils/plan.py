"""What follows from `apps` and the topology: each role's input for one host.

Apps are read key by key and only as far as needed, because Ansible templates what is read: whoever asks for the sites
does not decrypt the environment. Inventories are validated before this runs, so that it does not repeat the checks.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote

from ..module_utils.app_types import IMAGE_TYPES, PROCESS_TYPES
from . import plan_redis
from .hooks import ONCE
from .names import app_port, database_name, host_network, is_address, second_port, socket_address
from .site import PERIODS, mounts, split_domain, whole_domains
from .topology import LOOPBACK, Topology

Apps = Mapping[str, Mapping[str, Any]]
Row = dict[str, Any]

TLS_DIRECTORY = "/etc/shipshape/tls"
PASSWORD_DIRECTORY = "/etc/shipshape/postgresql"
REDIS_DIRECTORY = "/etc/shipshape/redis"
STATE_DIRECTORY = "/var/lib/shipshape"
#: Where a proxy looks which of an app's two releases answers: plugins/module_utils/app_proxy.py keeps it.
LIVE_DIRECTORY = f"{STATE_DIRECTORY}/live"
POSTGRESQL_PORT = 5432
#: Where PgBouncer listens unless the inventory says otherwise (pgbouncer_port).
PGBOUNCER_PORT = 6432
#: Where PostgreSQL's socket lies, which a container reaches where it cannot reach the host's loopback.
POSTGRESQL_SOCKETS = "/var/run/postgresql"
#: What a proxy needs of the loopback interface beside the ports of the web, unless the inventory moves them.
PROXY_PORTS = {
    "nginx": {"nginx-metrics": 8082},
    "traefik": {"traefik-metrics": 8082, "traefik-files": 8081},
}


class PlanError(ValueError):
    """The inventory asks for something that cannot be planned; the message says what."""


def _texts(value: str | Iterable[str] | None) -> list[str]:
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def with_process(apps: Apps) -> dict[str, Mapping[str, Any]]:
    """The apps that listen on ports of their own, on the hosts of the group `app`."""
    return {name: app for name, app in apps.items() if app.get("type") in PROCESS_TYPES}


def _with_database(apps: Apps) -> dict[str, Mapping[str, Any]]:
    return {name: app for name, app in apps.items() if app.get("database") is not None}


def _port(name: str, app: Mapping[str, Any]) -> int:
    return int(app.get("port") or app_port(name))


def _ports(name: str, app: Mapping[str, Any]) -> list[int]:
    """The port of an app and, when a proxy can switch between two releases of it, the second one's."""
    port = _port(name, app)
    return [port, second_port(port)] if app.get("domains") else [port]


def _database(name: str, app: Mapping[str, Any]) -> str:
    """The role of an app, and the database of that name, unless the app has its schemas in another one."""
    return str(app["database"].get("name") or database_name(name))


def database_host(topology: Topology) -> str:
    """The one host that apps connect to: the primary. Further hosts of the group have copies."""
    if not topology.database:
        raise PlanError("apps need a database, and group `database` has no host; put the droplet that holds it there")
    return topology.primary or topology.database[0]


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


def _site(name: str, app: Mapping[str, Any], topology: Topology, host: str) -> Row:
    domains = _texts(app.get("domains"))
    site: Row = {"name": name, "domains": domains, "redirect_domains": _texts(app.get("redirect_domains"))}
    # What has but a path on a domain is shown by the certificate of that.
    if whole_domains(site):
        site |= _certificate(name, is_address(domains[0]))
    site["locations"] = [_location(path, said) for path, said in (app.get("locations") or {}).items()]
    site.update(_edge(app))
    site.update((key, app[key]) for key in ("strip", "priority") if key in app)
    if given := app.get("request_headers"):
        site["request_headers"] = {key: str(value) for key, value in given.items()}
    if cors := app.get("cors"):
        site["cors"] = {key: _texts(cors.get(key)) for key in ("origins", "methods", "headers")}
    if app["type"] == "route":
        site["route"] = {
            "upstream": str(app["url"]),
            "timeout": int(app.get("timeout") or 60),
            "max_body_size": str(app.get("max_body_size") or "10m"),
        }
        return site
    if app["type"] == "static":
        site["static"] = {"root": f"/srv/{name}/current/public", "spa": bool(app.get("spa", False))}
        if size := app.get("max_body_size"):
            site["static"]["max_body_size"] = str(size)
        return site
    upstreams, green = (
        [socket_address(_upstream(topology, host, server), port) for server in topology.app]
        for port in _ports(name, app)
    )
    site["proxy"] = {
        "upstreams": upstreams,
        "green": {"upstreams": green, "flag": f"{LIVE_DIRECTORY}/{name}.green"},
        "websockets": _texts(app.get("websocket")),
        "timeout": int(app.get("timeout") or 60),
        "max_body_size": str(app.get("max_body_size") or "10m"),
    }
    return site


def _certificate(name: str, self_signed: bool) -> Row:
    return {
        "certificate": f"{TLS_DIRECTORY}/{name}/fullchain.pem",
        "certificate_key": f"{TLS_DIRECTORY}/{name}/privkey.pem",
        "self_signed": self_signed,
        # Browsers ignore it over a certificate they do not trust, and for an address.
        "hsts": not self_signed,
    }


def _edge(app: Mapping[str, Any]) -> Row:
    """Who may come to a site, how often, and what all answers say."""
    row: Row = {}
    if limit := app.get("rate_limit"):
        row["rate_limit"] = _rates(limit)
    if given := app.get("rate_limits"):
        row["rate_limits"] = {path: _rates(limit) for path, limit in given.items()}
    if headers := app.get("headers"):
        row["headers"] = {name: text(value) for name, value in headers.items()}
    if auth := app.get("basic_auth"):
        users = {name: str(password) for name, password in auth["users"].items()}
        row["basic_auth"] = {"users": users, "paths": _texts(auth.get("paths"))}
    if allowed := _texts(app.get("allow")):
        row["allow"] = allowed
    if closed := app.get("maintenance"):
        row["maintenance"] = {"message": str(closed["message"]) if isinstance(closed, Mapping) else ""}
    if app.get("type") in PROCESS_TYPES and (health := _health(app.get("health"))["health"]):
        row["health"] = health
    return row


def _rates(limit: Mapping[str, Any]) -> Row:
    """A limit with its burst. A page with its assets arrives at once: without room for that, the limit would hit honest
    visitors first. But where few requests are allowed, no more than those come at once."""
    rates = {key: int(limit[key]) for key in PERIODS if limit.get(key)}
    least = min(rates.values())
    burst = limit.get("burst")
    return {**rates, "burst": int(burst) if burst is not None else min(least - 1, max(least // 10, 20))}


def _location(path: str, said: str | Mapping[str, Any]) -> Row:
    """A path that another host answers: its URL alone, or with how it is asked."""
    if not isinstance(said, Mapping):
        return {"path": path, "upstream": said}
    row: Row = {"path": path, "upstream": str(said["url"])}
    row.update((key, said[key]) for key in ("strip", "priority", "request_headers") if key in said)
    return row


def _upstream(topology: Topology, proxy: str, server: str) -> str:
    """Where this proxy finds the app on that server: exactly where the app listens."""
    return topology.app_address(server, public=True) if proxy == server else topology.path(proxy, server)


def _sites(apps: Apps, topology: Topology, host: str) -> list[Row]:
    if host not in topology.proxy:
        return []
    sites = [_site(name, app, topology, host) for name, app in apps.items() if app.get("domains")]
    return sites + _nobodys(sites)


def _nobodys(sites: Sequence[Row]) -> list[Row]:
    """The domains on which there are only paths. Each has a site of its own name for its certificate."""
    owned = {name.lower() for site in sites for name in whole_domains(site)}
    names = dict.fromkeys(mount.domain.lower() for site in sites for mount in mounts(site))
    return [
        {"name": name, "domains": [name], "redirect_domains": [], **_certificate(name, False), "empty": True}
        for name in names
        if name not in owned
    ]


def _certificates(sites: Sequence[Row]) -> list[Row]:
    return [
        {"name": site["name"], "domains": whole_domains(site) + site["redirect_domains"]}
        for site in sites
        if site.get("certificate") and not site["self_signed"]
    ]


def reader(role: str) -> str:
    """The role that may read what an app's role has."""
    return f"{role}_read"


def database_schemas(role: str, database: Mapping[str, Any]) -> list[str]:
    """The schemas of an app. In another's database it has one of its role's name, which its role finds by itself."""
    return list(dict.fromkeys([role] * ("in" in database) + _texts(database.get("schemas"))))


def _database_roles(role: str, database: Mapping[str, Any]) -> list[Row]:
    """The role of an app, and the one that only reads."""
    row: Row = {"name": role, **({"password": database["password"]} if database.get("password") else {})}
    row.update((key, int(database[key])) for key in ("connection_limit",) if database.get(key))
    if not (read_only := database.get("read_only")):
        return [row]
    password = read_only.get("password") if isinstance(read_only, Mapping) else None
    return [row, {"name": reader(role), **({"password": password} if password else {})}]


def _postgresql(apps: Apps, topology: Topology, host: str) -> Row:
    users = _with_database(apps)
    databases: dict[str, Row] = {}
    roles: list[Row] = []
    clients: list[Row] = []
    remote: set[str] = set()
    peers = len(topology.database) > 1 and host in topology.database
    # A replica lets in whom its primary does, so that nothing has to be opened when it is promoted.
    if users and database_host(topology) and host in topology.database:
        # First those that have a database, then those that have schemas in one of these.
        for name, app in sorted(users.items(), key=lambda user: "in" in user[1]["database"]):
            role, said = _database(name, app), app["database"]
            database = str(said.get("in") or role)
            row = databases.setdefault(database, {"name": database, "owner": role, "extensions": []})
            row["extensions"] += [one for one in _texts(said.get("extensions")) if one not in row["extensions"]]
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


def _pgbouncer(apps: Apps, topology: Topology, host: str) -> Row:
    """The databases whose apps come by way of PgBouncer, each with who may come from where."""
    pools: list[Row] = []
    remote: set[str] = set()
    for name, app in _with_database(apps).items():
        if not app["database"].get("pool") or host not in topology.database:
            continue
        role, shared = _database(name, app), app["database"].get("in")
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


def redis_host(topology: Topology) -> str:
    """The one host that has Redis: that of the databases, or where there are none, the first that runs apps."""
    return database_host(topology) if topology.database or not topology.app else topology.app[0]


def _redis(apps: Apps, redis: Apps, topology: Topology, host: str) -> Row:
    """The instances of Redis on this host, and whether an app of it needs the package's own."""
    # As with the databases, what lets apps in is the same on a replica; site.yml runs it on the primary alone.
    here = bool(redis) and (host in topology.database or host == redis_host(topology))
    users = {name: _texts(app.get("redis")) for name, app in with_process(apps).items()}
    asked_for = [package for app in apps.values() for package in _texts(app.get("packages"))]
    return {
        "redis_instances": plan_redis.instances(redis, users, topology, host) if here else [],
        "redis_keep_packaged": host in topology.app and bool({"redis", "redis-server"} & set(asked_for)),
    }


def _redis_urls(
    name: str, app: Mapping[str, Any], redis: Apps, topology: Topology, host: str, passwords: Mapping[str, str]
) -> dict[str, str]:
    if not app.get("redis"):
        return {}
    login = plan_redis.login(name)
    if login not in passwords:
        raise PlanError(f"the password of app {name} for Redis was not read before the app was planned")
    address = topology.path(host, redis_host(topology))
    return plan_redis.urls(name, _texts(app["redis"]), redis, address, passwords[login])


def _listens(
    apps: Apps,
    topology: Topology,
    host: str,
    inputs: Row,
    proxy: str,
    http3: bool,
    pooler: int,
) -> list[Row]:
    """What the services of `host` listen on and for whom: the one declaration of ports.

    `addresses` are those a service binds to (`*`: all). `sources` are who may come from outside; empty for everybody,
    and of no account where all addresses are loopback's.
    """
    rows: list[Row] = []
    if host in topology.proxy:
        for name, port in (("http", 80), ("https", 443)):
            rows.append({"name": name, "port": port, "protocol": "tcp", "addresses": ["*"], "sources": []})
        if http3:
            rows.append({"name": "http3", "port": 443, "protocol": "udp", "addresses": ["*"], "sources": []})
        for name, port in PROXY_PORTS.get(proxy, {}).items():
            rows.append({"name": name, "port": port, "protocol": "tcp", "addresses": [LOOPBACK], "sources": []})
    proxies = [host_network(topology.addresses[proxy]) for proxy in topology.proxy if proxy != host]
    for name, app in with_process(apps).items() if host in topology.app else ():
        address = topology.app_address(host, public=bool(app.get("domains")))
        sources = [] if address == LOOPBACK else proxies
        for port in _ports(name, app):
            rows.append({"name": name, "port": port, "protocol": "tcp", "addresses": [address], "sources": sources})
    if host in topology.database:
        allowed = dict.fromkeys(address for client in inputs["postgresql_clients"] for address in client["addresses"])
        allowed |= dict.fromkeys(host_network(peer["address"]) for peer in inputs["postgresql_replication"]["peers"])
        rows.append(
            {
                "name": "postgresql",
                "port": POSTGRESQL_PORT,
                "protocol": "tcp",
                "addresses": inputs["postgresql_listen_addresses"],
                "sources": [address for address in allowed if address != host_network(LOOPBACK)],
            }
        )
    if pools := inputs["pgbouncer_pools"]:
        sources = list(dict.fromkeys(address for pool in pools for address in pool["addresses"]))
        addresses = inputs["pgbouncer_listen_addresses"]
        rows.append(
            {"name": "pgbouncer", "port": pooler, "protocol": "tcp", "addresses": addresses, "sources": sources}
        )
    for instance in inputs["redis_instances"]:
        row = {key: instance[key] for key in ("port", "addresses", "sources")}
        rows.append({"name": f"redis-{instance['name']}", "protocol": "tcp", **row})
    return rows


def _firewall(listens: Sequence[Row]) -> list[Row]:
    """What the firewall must let in for that."""
    return [
        {"name": row["name"], "port": row["port"], "protocol": row["protocol"]}
        | ({"sources": row["sources"]} if row["sources"] else {})
        for row in listens
        if not {LOOPBACK, "localhost"}.issuperset(row["addresses"])
    ]


def _backup_paths(apps: Apps, topology: Topology, host: str, certificates: Sequence[Row]) -> list[str]:
    """What a host has that neither git nor a database has: passwords, certificates, what the apps have written."""
    paths = ["/etc/shipshape"] + (["/etc/letsencrypt"] if certificates else [])
    if host in topology.app:
        paths += [
            f"{STATE_DIRECTORY}/{name}"
            for name, app in with_process(apps).items()
            if app["type"] != "container" or app.get("volumes")
        ]
    return paths


def _logins(apps: Apps, topology: Topology, host: str) -> list[Row]:
    """What the apps of this host log in as, and the file on the database host that has the password."""
    if host not in topology.app:
        return []
    redis = [
        {"role": plan_redis.login(name), "host": redis_host(topology), "path": f"{REDIS_DIRECTORY}/{name}.password"}
        for name, app in with_process(apps).items()
        if app.get("redis")
    ]
    return redis + [
        {
            "role": _database(name, app),
            "host": database_host(topology),
            "path": f"{PASSWORD_DIRECTORY}/{_database(name, app)}.password",
        }
        for name, app in _with_database(apps).items()
        if not app["database"].get("password")
    ]


def _needs(apps: Apps, topology: Topology, host: str) -> list[Row]:
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


def plan(
    apps: Apps,
    topology: Topology,
    host: str,
    proxy: str = "nginx",
    http3: bool = False,
    pooler: int = PGBOUNCER_PORT,
    redis: Apps | None = None,
) -> Row:
    """Each role's input on `host`, under the names the roles give it; what the apps themselves need is `app_list`.

    `pooler` is the port of PgBouncer on the database host, `redis` the instances that the inventory names.
    """
    sites = _sites(apps, topology, host)
    certificates = _certificates(sites)
    inputs = {
        **_postgresql(apps, topology, host),
        **_pgbouncer(apps, topology, host),
        **_redis(apps, redis or {}, topology, host),
    }
    listens = _listens(apps, topology, host, inputs, proxy, http3, pooler)
    return {
        "nginx_sites": sites,
        "certbot_certificates": certificates,
        **inputs,
        "listens": listens,
        "hardening_contributed_firewall_rules": _firewall(listens),
        "backup_paths": _backup_paths(apps, topology, host, certificates),
        "docker_compose": host in topology.app and any(app["type"] == "compose" for app in apps.values()),
        "database_logins": _logins(apps, topology, host),
        "needs": _needs(apps, topology, host),
        "partitioned": any(app["database"].get("partitions") for app in _with_database(apps).values()),
    }


def text(value: Any) -> str:
    """A value of the environment as the text that a process sees: YAML's true is `true`, not Python's `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def _uses_socket(app: Mapping[str, Any], topology: Topology, host: str) -> bool:
    """Whether the app's database is on its own host: the loopback interface of a container is another one."""
    return app.get("database") is not None and database_host(topology) == host


def _database_urls(
    app: Mapping[str, Any], topology: Topology, host: str, role: str, password: str, pooler: int
) -> dict[str, str]:
    """Where an app finds its database. What needs a session of its own goes past the pooler, by the second URL."""

    database = app["database"].get("in") or role

    def url(port: int) -> str:
        name = role if port == pooler else database
        where = f"{socket_address(topology.path(host, database_host(topology)), port)}/{name}"
        if app["type"] in IMAGE_TYPES and _uses_socket(app, topology, host):
            where = f"/{name}?host={POSTGRESQL_SOCKETS}" + (f"&port={port}" if port != POSTGRESQL_PORT else "")
        return f"postgresql://{quote(role)}:{quote(password, safe='')}@{where}"

    if not app["database"].get("pool"):
        return {"DATABASE_URL": url(POSTGRESQL_PORT)}
    own = app.get("env") or {}
    # Whoever writes the one URL by hand means it for all that the app does.
    direct = {"DIRECT_DATABASE_URL": url(POSTGRESQL_PORT)} if "DATABASE_URL" not in own else {}
    return {"DATABASE_URL": url(pooler), **direct}


def _environment(
    name: str,
    app: Mapping[str, Any],
    topology: Topology,
    host: str,
    passwords: Mapping[str, str] | None,
    pooler: int,
    redis: Apps,
) -> dict[str, str]:
    container = app["type"] in IMAGE_TYPES
    environment = {
        "HOST": topology.app_address(host, public=bool(app.get("domains"))),
        "PORT": str(_port(name, app)),
    }
    if container:
        told = app.get("container_port") and app["type"] == "container"  # a Compose file has an environment of its own
        environment = {"HOST": "0.0.0.0", "PORT": str(app["container_port"])} if told else {}
    if (database := app.get("database")) is not None:
        role = _database(name, app)
        password = database.get("password")
        if not password and passwords is not None:
            if role not in passwords:
                raise PlanError(f"the password of database role {role} was not read before app {name} was planned")
            password = passwords[role]
        if password:
            environment.update(_database_urls(app, topology, host, role, str(password), pooler))
    if passwords is not None:
        environment.update(_redis_urls(name, app, redis, topology, host, passwords))
    environment.update((key, text(value)) for key, value in (app.get("env") or {}).items())
    return environment


def _release(name: str, app: Mapping[str, Any]) -> Row:
    row: Row = {
        "name": name,
        "type": app["type"],
        "user": name,
        "directory": f"/srv/{name}",
        "packages": _texts(app.get("packages")),
        "keep_releases": int(app.get("keep_releases") or 5),
    }
    if app["type"] != "container":
        source = app["source"]
        row["source"] = {"path": os.path.normpath(source.get("path") or ".")}
        if source.get("archive"):
            row["source"] |= {"archive": str(source["archive"]), "checksum": str(source["checksum"])}
        else:
            row["source"] |= {"git": str(source["git"]), "version": str(source.get("version") or "main")}
            row["source"] |= {key: str(source[key]) for key in ("deploy_key", "host_key") if source.get(key)}
    return row


def _container(app: Mapping[str, Any], topology: Topology, host: str) -> Row:
    """What is an image's or a Compose file's alone."""
    if app["type"] not in IMAGE_TYPES:
        return {}
    row: Row = {"image": str(app["image"])} if app["type"] == "container" else {"service": str(app["service"])}
    if app.get("compose_file"):
        row["compose_file"] = _texts(app["compose_file"])
    row.update((key, app[key]) for key in ("container_port", "volumes", "capabilities") if key in app)
    if (login := app.get("registry")) is not None:
        row["registry"] = {key: str(login[key]) for key in ("server", "username", "password") if key in login}
    if _uses_socket(app, topology, host):
        row["sockets"] = [POSTGRESQL_SOCKETS]
    return row


def _switched(name: str, app: Mapping[str, Any]) -> Row:
    """What a deploy needs to start a release beside the one that serves, and to lead the proxies to it."""
    if not app.get("domains"):
        return {}
    row: Row = {"second_port": second_port(_port(name, app)), "domain": split_domain(_texts(app["domains"])[0])[0]}
    # The app is asked by itself for its own path, and through the proxy for the one that a visitor would write.
    first = mounts({"name": name, **app, "domains": _texts(app["domains"])[:1]})
    if first:
        row["domain_health"] = first[0].within(_health(app.get("health"))["health"])
    return row | ({"watch_seconds": int(app["watch"])} if app.get("watch") is not None else {})


def _built(app: Mapping[str, Any], first: bool) -> Row:
    """What makes a release out of the code, and what is run at the moments of its deploy."""
    row: Row = {key: str(app[key]) for key in ("build", "publish") if app.get(key)}
    said = app.get("hooks") or {}
    hooks = {moment: str(command) for moment, command in said.items() if first or moment not in ONCE}
    return row | ({"hooks": hooks} if hooks else {})


def _started_after(app: Mapping[str, Any], topology: Topology, host: str) -> Row:
    """The services of this host by way of which the app gets to its data; without them its start would fail."""
    units: list[str] = []
    if (database := app.get("database")) is not None and database.get("pool") and database_host(topology) == host:
        units.append("pgbouncer.service")
    if app.get("redis") and redis_host(topology) == host:
        units += [f"redis-server@{name}.service" for name in _texts(app["redis"])]
    return {"after": units} if units else {}


def _processes(app: Mapping[str, Any], first: bool) -> Row:
    """What runs beside the process that answers requests, before it and after it.

    Data is one for all hosts of the group: the first of them migrates and seeds it, has the timetable, and runs what
    may run once; the others wait at the same task.
    """
    migrate = app.get("migrate") or ""
    row: Row = {"migrate": str(migrate) if first and not isinstance(migrate, Mapping) else ""}
    row |= {"migrate_sql": str(migrate["sql"])} if first and isinstance(migrate, Mapping) else {}
    processes = [
        {"name": name, **{key: value for key, value in _process(process).items() if key != "once"}}
        for name, process in (app.get("processes") or {}).items()
        if first or not _process(process).get("once")
    ]
    cron = [{"name": name, **entry} for name, entry in (app.get("cron") or {}).items()] if first else []
    row |= {"seed": str(app["seed"])} if app.get("seed") and first else {}
    row |= {"processes": processes} if processes else {}
    row |= {"cron": cron} if cron else {}
    row |= {"shared": _texts(app.get("shared"))} if app.get("shared") else {}
    row |= {"memory": str(app["memory"])} if app.get("memory") else {}
    return row | ({"cpus": float(app["cpus"])} if app.get("cpus") else {})


def _process(process: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return process if isinstance(process, Mapping) else {"command": process}


def _health(health: str | Mapping[str, Any] | None) -> Row:
    """A path alone, or with what has to come of it and by when."""
    if not isinstance(health, Mapping):
        return {"health": str(health or "")}
    names = {"status": "health_status", "body": "health_body", "start_period": "health_timeout"}
    return {"health": str(health["path"]), **{names[key]: health[key] for key in names if key in health}}


def plan_apps(
    apps: Apps,
    topology: Topology,
    host: str,
    passwords: Mapping[str, str] | None = None,
    only: str = "",
    pooler: int = PGBOUNCER_PORT,
    redis: Apps | None = None,
) -> list[Row]:
    """The apps to deploy on `host`: those with a process on app hosts, static ones on the proxies, which serve them.

    `passwords` are those of the database roles by name. None means that they are not read yet: then DATABASE_URL is
    missing, and the list serves to install packages and to create users, not to start anything.
    """
    if only and only not in apps:
        raise PlanError(f"there is no app {only!r}; `apps` has: {', '.join(apps) or 'none'}")
    rows: list[Row] = []
    for name, app in apps.items():
        if only and name != only:
            continue
        if app["type"] == "static" and host in topology.proxy:
            # What it is built with is in no file that the web server can read.
            built = (
                {"env": {key: text(value) for key, value in (app.get("env") or {}).items()}} if app.get("env") else {}
            )
            rows.append({**_release(name, app), **_built(app, first=host == topology.proxy[0]), **built})
        if app["type"] in PROCESS_TYPES and host in topology.app:
            first = host == topology.app[0]
            rows.append(
                {
                    **_release(name, app),
                    **_built(app, first),
                    **_container(app, topology, host),
                    "command": str(app.get("command") or app.get("arguments") or ""),
                    **_processes(app, first),
                    **_started_after(app, topology, host),
                    **_health(app.get("health")),
                    "address": topology.app_address(host, public=bool(app.get("domains"))),
                    "port": _port(name, app),
                    **_switched(name, app),
                    "env": _environment(name, app, topology, host, passwords, pooler, redis or {}),
                }
            )
    return rows
