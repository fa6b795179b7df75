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

App = Mapping[str, Any]


def _fingerprint(*values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()


def _environment(app: App) -> dict[str, str]:
    return {str(name): str(value) for name, value in (app.get("env") or {}).items()}


def app_specs(apps: Iterable[App], version: str = "") -> dict[str, dict[str, Any]]:
    """Each app as the modules take it, by name; `version`, when given, in place of the app's own."""
    specs: dict[str, dict[str, Any]] = {}
    for app in apps:
        source = app["source"]
        specs[str(app["name"])] = {
            "name": str(app["name"]),
            "type": str(app["type"]),
            "user": str(app.get("user") or app["name"]),
            "directory": str(app.get("directory") or f"/srv/{app['name']}"),
            "git": str(source["git"]),
            "version": str(version or source.get("version") or "main"),
            "path": str(source.get("path") or "."),
            "command": str(app.get("command") or ""),
            "migrate": str(app.get("migrate") or ""),
            "health": str(app.get("health") or ""),
            "address": str(app.get("address") or "127.0.0.1"),
            "port": int(app.get("port") or 0),
            "second_port": int(app.get("second_port") or 0),
            "domain": str(app.get("domain") or ""),
            "watch_seconds": int(app["watch_seconds"]) if app.get("watch_seconds") is not None else -1,
            "keep_releases": int(app.get("keep_releases") or 5),
            # What makes a new release besides a new commit.
            "settings_fingerprint": _fingerprint(app["type"], source.get("path") or ".", app.get("command") or ""),
            "environment_fingerprint": _fingerprint(_environment(app)),
        }
    return specs


def app_environment(apps: Iterable[App], name: str) -> str:
    """One app's environment, sealed: a module can take it as a single argument that is never logged."""
    app = next(app for app in apps if app["name"] == name)
    return base64.b64encode(json.dumps(_environment(app)).encode()).decode()


def app_units(specs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The systemd units as shipshape.droplet.files takes them."""
    return [
        {
            "path": f"/etc/systemd/system/{name}@{colour}.service",
            "template": "app.service.j2",
            "vars": {
                "__app_unit": {
                    **{key: spec[key] for key in ("name", "user", "directory")},
                    "colour": colour,
                    "port": port,
                }
            },
        }
        for name, spec in specs.items()
        if spec["type"] == "python"
        for colour, port in (("blue", spec["port"]), ("green", spec["second_port"] or spec["port"]))
    ]


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"app_specs": app_specs, "app_environment": app_environment, "app_units": app_units}
