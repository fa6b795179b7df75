"""Starts, ends and returns to releases of an app that has a process."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils import app_env, app_service
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import port_of
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import COLOURS, Release, Store, other


def environment_of(release: Release) -> dict[str, str]:
    try:
        with open(os.path.join(release.path, "env"), encoding="utf-8") as stream:
            environment: dict[str, str] = app_env.from_file(stream.read())
    except FileNotFoundError:
        return {}
    return environment


def gate_for(app: dict[str, Any], unit: str, release: Release, colour: str, patience: int) -> app_service.Gate:
    """Where this very release answers: an older one may have another health path, and another single port."""
    address, port, path = app["address"], port_of(app, colour), app["health"]
    wanted = (app["settings_fingerprint"], app["environment_fingerprint"])
    health = release.record.get("health") or {}
    if health and wanted != (release.record.get("settings"), release.record.get("environment")):
        address, path = health["address"], health["path"]
        port = port if app["second_port"] else health["port"]
    return app_service.Gate(unit, address, port, path, patience)


def log_of(unit: str, release: Release, since: float, health: str) -> str:
    """The last lines a release has logged, without anything secret."""
    return str(app_env.scrub(app_service.journal(unit, since, health), environment_of(release)))


def stop(*units: str) -> None:
    """Stop services, and keep them from starting at boot."""
    if units:
        app_service.systemctl("disable", "--quiet", *units)
        app_service.systemctl("stop", *units)
        app_service.systemctl("reset-failed", "--quiet", *units)


def start(app: dict[str, Any], store: Store, release: Release, colour: str, patience: int) -> tuple[str, str]:
    """Start a release under a colour that does not serve. (Nothing or what is wrong with it, its last lines)."""
    began = time.time()
    unit = store.unit(colour)
    stop(unit)
    if not app["second_port"]:
        # Both would want the one port, and nobody can choose between them.
        app_service.systemctl("stop", *store.idle_units(), store.live_unit)
    store.point(colour, release.id)
    gate = gate_for(app, unit, release, colour, patience)
    problem = gate.start()
    if not problem:
        return "", ""
    return str(app_env.scrub(problem, environment_of(release))), log_of(unit, release, began, gate.path)


def give_up(app: dict[str, Any], store: Store, colour: str, patience: int) -> str:
    """End what was started beside the live release, and say what serves."""
    live = store.release(store.healthy) or store.release(store.current)
    if store.colour == colour or live is None:
        stop(*(store.unit(each) for each in COLOURS))
        store.point(colour, "")
        return "there is no earlier release, so the app is stopped"
    stop(store.unit(colour))
    store.point(colour, "")
    unit = store.live_unit
    if app_service.is_up(app_service.show([unit]).get(unit)):
        return f"release {live.id} goes on serving"
    problem = gate_for(app, unit, live, store.colour, patience).start()
    if problem:
        return f"release {live.id} was started again but is not healthy either: {problem}"
    return f"release {live.id} was started again and is serving"


def settle(app: dict[str, Any], store: Store, release: Release, colour: str, patience: float) -> str:
    """Make a release that serves already the live one for good, and end the one before. Says what had to be cut off."""
    before = store.colour
    units = [unit for unit in [store.unit(other(colour)), store.single_unit if store.single else ""] if unit]
    store.switch(release.id)
    store.confirm(release.id, colour)
    app_service.systemctl("disable", "--quiet", *units)
    cut = 0
    if before and before != colour and app["second_port"]:
        cut = app_service.drain(port_of(app, before), patience)
    stop(*units)
    if store.single:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(store.units, store.single_unit))
        app_service.systemctl("daemon-reload")
    store.point(other(colour), "")
    return f"{cut} connections were cut off after {int(patience)} seconds" if cut else ""
