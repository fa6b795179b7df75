"""What each app of a host is deployed from and how it is run: the input of the role `app`."""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from typing import Any

from ..module_utils.app_types import IMAGE_TYPES, PROCESS_TYPES
from .hooks import ONCE
from .names import second_port
from .plan_common import Apps, PlanError, Row, health_of, port_of, text, texts
from .plan_environment import environment_of
from .plan_pgbouncer import PGBOUNCER_PORT
from .plan_postgresql import POSTGRESQL_SOCKETS, database_host, uses_socket
from .plan_redis import Instances, redis_host
from .site import mounts, split_domain
from .topology import Topology


def plan_apps(
    apps: Apps,
    topology: Topology,
    host: str,
    passwords: Mapping[str, str] | None = None,
    only: str = "",
    pooler: int = PGBOUNCER_PORT,
    redis: Instances | None = None,
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
                    **health_of(app.get("health")),
                    "address": topology.app_address(host, public=bool(app.get("domains"))),
                    "port": port_of(name, app),
                    **_switched(name, app),
                    "env": environment_of(name, app, topology, host, passwords, pooler, redis or {}),
                }
            )
    return rows


def _release(name: str, app: Mapping[str, Any]) -> Row:
    row: Row = {
        "name": name,
        "type": app["type"],
        "user": name,
        "directory": f"/srv/{name}",
        "packages": texts(app.get("packages")),
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


def _built(app: Mapping[str, Any], first: bool) -> Row:
    """What makes a release out of the code, and what is run at the moments of its deploy."""
    row: Row = {key: str(app[key]) for key in ("build", "publish") if app.get(key)}
    said = app.get("hooks") or {}
    hooks = {moment: str(command) for moment, command in said.items() if first or moment not in ONCE}
    return row | ({"hooks": hooks} if hooks else {})


def _container(app: Mapping[str, Any], topology: Topology, host: str) -> Row:
    """What is an image's or a Compose file's alone."""
    if app["type"] not in IMAGE_TYPES:
        return {}
    row: Row = {"image": str(app["image"])} if app["type"] == "container" else {"service": str(app["service"])}
    if app.get("compose_file"):
        row["compose_file"] = texts(app["compose_file"])
    row.update((key, app[key]) for key in ("container_port", "volumes", "capabilities") if key in app)
    if (login := app.get("registry")) is not None:
        row["registry"] = {key: str(login[key]) for key in ("server", "username", "password") if key in login}
    if uses_socket(app, topology, host):
        row["sockets"] = [POSTGRESQL_SOCKETS]
    return row


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
    row |= {"shared": texts(app.get("shared"))} if app.get("shared") else {}
    row |= {"memory": str(app["memory"])} if app.get("memory") else {}
    return row | ({"cpus": float(app["cpus"])} if app.get("cpus") else {})


def _process(process: str | Mapping[str, Any]) -> Mapping[str, Any]:
    return process if isinstance(process, Mapping) else {"command": process}


def _started_after(app: Mapping[str, Any], topology: Topology, host: str) -> Row:
    """The services of this host by way of which the app gets to its data; without them its start would fail."""
    units: list[str] = []
    if (database := app.get("database")) is not None and database.get("pool") and database_host(topology) == host:
        units.append("pgbouncer.service")
    if app.get("redis") and redis_host(topology) == host:
        units += [f"redis-server@{name}.service" for name in texts(app["redis"])]
    return {"after": units} if units else {}


def _switched(name: str, app: Mapping[str, Any]) -> Row:
    """What a deploy needs to start a release beside the one that serves, and to lead the proxies to it."""
    if not app.get("domains"):
        return {}
    row: Row = {"second_port": second_port(port_of(name, app)), "domain": split_domain(texts(app["domains"])[0])[0]}
    # The app is asked by itself for its own path, and through the proxy for the one that a visitor would write.
    first = mounts({"name": name, **app, "domains": texts(app["domains"])[:1]})
    if first:
        row["domain_health"] = first[0].within(health_of(app.get("health"))["health"])
    return row | ({"watch_seconds": int(app["watch"])} if app.get("watch") is not None else {})
