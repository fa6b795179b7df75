"""Filters between `app_list` and the modules of the role app: what each step may know, and nothing more.

The environment of an app holds secrets. Only the step that writes it gets it, in one sealed piece; the other steps and
every loop see fingerprints.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import split
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import (
    IMAGE_TYPES,
    PROCESS_TYPES,
    cron_unit,
    process_unit,
)

App = Mapping[str, Any]

#: What is a text, and empty when it is left out.
TEXTS = ("build", "publish", "command", "migrate", "migrate_sql", "seed", "health")


def _fingerprint(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _environment(app: App) -> dict[str, str]:
    return {str(name): str(value) for name, value in (app.get("env") or {}).items()}


def _socket(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _container(app: App, image: str) -> dict[str, Any] | None:
    """What a container of the app is made of; nothing for an app that is none."""
    if app["type"] not in IMAGE_TYPES:
        return None
    files = app.get("compose_file") or []
    stack = {
        "service": str(app.get("service") or ""),
        "files": [files] if isinstance(files, str) else [str(file) for file in files],
        "server": str((app.get("registry") or {}).get("server") or ""),
    }
    return {
        "image": image,
        "port": int(app.get("container_port") or 0),
        "volumes": {str(path): str(name) for path, name in (app.get("volumes") or {}).items()},
        "capabilities": [str(name) for name in app.get("capabilities") or []],
        **_limits(app),
        "sockets": [str(path) for path in app.get("sockets") or []],
        **(stack if app["type"] == "compose" else {}),
    }


def app_specs(apps: Iterable[App], version: str = "") -> dict[str, dict[str, Any]]:
    """Each app as the modules take it, by name; `version`, when given, in place of the app's own."""
    specs: dict[str, dict[str, Any]] = {}
    for app in apps:
        source = app.get("source") or {}
        image, version_of_image = split(str(app.get("image") or ""))
        own_version = version_of_image or "latest" if image else source.get("version") or "main"
        archive = str(source.get("archive") or "")
        if archive:
            # What a list of releases shows; which archive it is says its checksum.
            own_version = archive.rstrip("/").rpartition("/")[2]
        container = _container(app, image)
        specs[str(app["name"])] = {
            "name": str(app["name"]),
            "type": str(app["type"]),
            "user": str(app.get("user") or app["name"]),
            "directory": str(app.get("directory") or f"/srv/{app['name']}"),
            "git": str(source.get("git") or ""),
            "host_key": str(source.get("host_key") or ""),
            "archive": archive,
            "checksum": str(source.get("checksum") or ""),
            "version": str(version or own_version),
            "path": str(source.get("path") or "."),
            "container": container,
            **{key: str(app.get(key) or "") for key in TEXTS},
            "hooks": {str(moment): str(command) for moment, command in (app.get("hooks") or {}).items()},
            "shared": [str(folder) for folder in app.get("shared") or []],
            "processes": [_process(process) for process in app.get("processes") or []],
            "cron": [{key: str(entry[key]) for key in ("name", "command")} for entry in app.get("cron") or []],
            "health_status": int(app.get("health_status") or 200),
            "health_body": str(app.get("health_body") or ""),
            "health_timeout": int(app.get("health_timeout") or 0),
            "address": str(app.get("address") or "127.0.0.1"),
            "port": int(app.get("port") or 0),
            "second_port": int(app.get("second_port") or 0),
            "domain": str(app.get("domain") or ""),
            "domain_health": str(app.get("domain_health") or app.get("health") or ""),
            "watch_seconds": int(app["watch_seconds"]) if app.get("watch_seconds") is not None else -1,
            "keep_releases": int(app.get("keep_releases") or 5),
            # What makes a new release besides a new commit.
            "settings_fingerprint": _fingerprint(
                app["type"],
                source.get("path") or ".",
                app.get("command") or "",
                *_scripts(app),
                *([container] if container else []),
            ),
            "environment_fingerprint": _fingerprint(_environment(app)),
        }
    return specs


def _process(process: App) -> dict[str, Any]:
    return {
        "name": str(process["name"]),
        "command": str(process["command"]),
        "count": int(process.get("count") or 1),
        "stop_timeout": int(process.get("stop_timeout") or 60),
        **_limits(process),
    }


def _limits(said: App) -> dict[str, Any]:
    return {"memory": str(said.get("memory") or ""), "cpus": float(said.get("cpus") or 0)}


def _scripts(app: App) -> list[Any]:
    """What else is written into a release, or makes it; nothing for an app that has none of it."""
    commands = {key: app[key] for key in ("build", "publish", "hooks", "shared") if app.get(key)}
    for key in ("processes", "cron"):
        if app.get(key):
            commands[key] = {entry["name"]: entry["command"] for entry in app[key]}
    # Of an app from git they are in its units; of a container they are in the release.
    limits = {process["name"]: _limits(process) for process in app.get("processes") or []}
    if app["type"] == "container" and limits:
        commands["limits"] = limits
    return [commands] if commands else []


def _sealed(value: Any) -> str:
    return base64.b64encode(json.dumps(value).encode()).decode()


def app_registries(apps: Iterable[App], name: str = "") -> str:
    """The logins for the registries of all apps or of one, sealed like an environment."""
    return _sealed(
        {
            str(app["name"]): {key: str(app["registry"].get(key) or "") for key in ("username", "password")}
            for app in apps
            if app.get("registry") and name in ("", app["name"])
        }
    )


def app_deploy_keys(apps: Iterable[App], name: str = "") -> str:
    """The keys for the repositories of all apps or of one, sealed in the same way."""
    keys = {str(app["name"]): str((app.get("source") or {}).get("deploy_key") or "") for app in apps}
    return _sealed({app: key for app, key in keys.items() if key and name in ("", app)})


def app_environment(apps: Iterable[App], name: str) -> str:
    """One app's environment, sealed: a module can take it as a single argument that is never logged."""
    app = next(app for app in apps if app["name"] == name)
    return _sealed(_environment(app))


def _unit(name: str, app: App, **facts: Any) -> dict[str, Any]:
    """One unit as shipshape.droplet.files takes it."""
    unit = {
        "unit": name.removesuffix(".service"),
        "app": str(app["name"]),
        "user": str(app.get("user") or app["name"]),
        "directory": str(app.get("directory") or f"/srv/{app['name']}"),
        "after": [str(other) for other in app.get("after") or []],
        **_limits(app),
        **facts,
    }
    return {
        "path": f"/etc/systemd/system/{name}",
        "template": "app.service.j2",
        "vars": {"__app_unit": unit},
    }


def _container_unit(name: str, app: App, called: str, **facts: Any) -> dict[str, Any]:
    """The unit that runs an image, in a container that is called so."""
    unit = {
        "unit": name.removesuffix(".service"),
        "app": str(app["name"]),
        "directory": str(app.get("directory") or f"/srv/{app['name']}"),
        "after": [str(other) for other in app.get("after") or []],
        "container": called,
        **facts,
    }
    return {"path": f"/etc/systemd/system/{name}", "template": "container.service.j2", "vars": {"__app_unit": unit}}


def _container_units(app: App) -> list[dict[str, Any]]:
    """The units of an app that is an image: as `_code_units`, of a container each."""
    name, port, address = str(app["name"]), int(app.get("port") or 0), str(app.get("address") or "127.0.0.1")
    files: list[dict[str, Any]] = []
    for colour, listens in (("blue", port), ("green", int(app.get("second_port") or port))):
        web = f"{name}@{colour}.service"
        script = f"container {colour}" + (f" {_socket(address, listens)}" if listens else "")
        files.append(_container_unit(web, app, f"{name}-{colour}", link=colour, script=script))
        for process in app.get("processes") or []:
            for number in range(1, int(process.get("count") or 1) + 1):
                nth = "" if number == 1 else str(number)
                files.append(
                    _container_unit(
                        process_unit(name, process["name"], number, colour),
                        app,
                        "{}.{}{}-{}".format(name, process["name"], nth and f"-{nth}", colour),
                        link=colour,
                        script=" ".join(["process." + process["name"], colour, nth]).strip(),
                        beside=web,
                        stop_timeout=int(process.get("stop_timeout") or 60),
                    )
                )
    for entry in app.get("cron") or []:
        script = "cron." + entry["name"]
        unit = cron_unit(name, entry["name"])
        files.append(_container_unit(unit, app, f"{name}-{script}", link="current", script=script, once=True))
    return files


def _code_units(app: App) -> list[dict[str, Any]]:
    """The units of an app that runs from its code: of each colour and the processes beside it, and of its timetable."""
    name, port = str(app["name"]), int(app.get("port") or 0)
    files: list[dict[str, Any]] = []
    for colour, listens in (("blue", port), ("green", int(app.get("second_port") or port))):
        files.append(_unit(f"{name}@{colour}.service", app, link=colour, script="run", port=listens))
        for process in app.get("processes") or []:
            limits = {key: process[key] for key in ("memory", "cpus") if process.get(key)}
            files += [
                _unit(
                    process_unit(name, process["name"], number, colour),
                    app,
                    **limits,
                    link=colour,
                    script="process." + process["name"],
                    beside=f"{name}@{colour}.service",
                    stop_timeout=int(process.get("stop_timeout") or 60),
                )
                for number in range(1, int(process.get("count") or 1) + 1)
            ]
    for entry in app.get("cron") or []:
        unit = cron_unit(name, entry["name"])
        files.append(_unit(unit, app, link="current", script="cron." + entry["name"], once=True))
    return files


def app_units(apps: Iterable[App]) -> list[dict[str, Any]]:
    """The systemd units of the apps, and their crontabs, as shipshape.droplet.files takes them."""
    files: list[dict[str, Any]] = []
    for app in apps:
        if app["type"] not in PROCESS_TYPES:
            continue
        files += _container_units(app) if app["type"] in IMAGE_TYPES else _code_units(app)
        name = str(app["name"])
        lines = [f"# Written by Shipshape; local changes are lost. What these have done: journalctl -t {name}"]
        for entry in app.get("cron") or []:
            lines.append(f"{entry['schedule']} root systemctl start --no-block {cron_unit(name, entry['name'])}")
        crontab = {"path": f"/etc/cron.d/shipshape-app-{name}"}
        content = {"content": "\n".join([*lines, ""])} if len(lines) > 1 else {"state": "absent"}
        files.append({**crontab, **content})
    return files


def app_prepares(spec: Mapping[str, Any]) -> bool:
    """Whether an app has something to do to its data before a new release starts."""
    return bool(
        spec["migrate"]
        or spec["migrate_sql"]
        or spec["seed"]
        or {"before_migrate", "after_migrate"} & set(spec["hooks"])
    )


def app_purges(apps: Iterable[App]) -> list[dict[str, str]]:
    """Where units of processes and of lines of crontabs lie that an app may have had and has no more."""
    return [
        {
            "directory": "/etc/systemd/system",
            "pattern": f"{app['name']}.*.service",
            "begins": "# Written by Shipshape.",
        }
        for app in apps
        if app["type"] in PROCESS_TYPES
    ]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "app_specs": app_specs,
            "app_environment": app_environment,
            "app_registries": app_registries,
            "app_deploy_keys": app_deploy_keys,
            "app_units": app_units,
            "app_prepares": app_prepares,
            "app_purges": app_purges,
        }
