"""Starts, ends and returns to releases of an app that has a process."""

from __future__ import annotations

import contextlib
import os
import time
from typing import Any, Callable, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_env,
    app_service,
    app_stack,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import port_of
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import COLOURS, Release, Store, other
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import process_unit


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
    status, body = app["health_status"], app["health_body"]
    wanted = (app["settings_fingerprint"], app["environment_fingerprint"])
    health = release.record.get("health") or {}
    if health and wanted != (release.record.get("settings"), release.record.get("environment")):
        address, path = health["address"], health["path"]
        port = port if app["second_port"] else health["port"]
        status, body = int(health.get("status") or 200), str(health.get("body") or "")
    return app_service.Gate(unit, address, port, path, app["health_timeout"] or patience, status, body)


def log_of(unit: str, release: Release, since: float, health: str) -> str:
    """The last lines a release has logged, without anything secret."""
    return str(app_env.scrub(app_service.journal(unit, since, health), environment_of(release)))


def others(app: dict[str, Any], colour: str, release: Release | None = None) -> list[str]:
    """The units of the processes beside the one that answers requests; of a release, those that it knows."""
    known = None if release is None else release.record.get("processes") or []
    return [
        process_unit(app["name"], process["name"], number, colour)
        for process in app["processes"]
        if known is None or process["name"] in known
        for number in range(1, process["count"] + 1)
    ]


def stop(*units: str, patience: int = 0) -> None:
    """Stop services, and keep them from starting at boot. Each has the time its unit gives it to finish its work."""
    if units:
        app_service.systemctl("disable", "--quiet", *units)
        app_service.systemctl("stop", *units, timeout=patience + 180)
        app_service.systemctl("reset-failed", "--quiet", *units)


def stop_colour(app: dict[str, Any], store: Store, colour: str) -> None:
    """All that runs under a colour."""
    stop(store.unit(colour), *others(app, colour), patience=_longest(app))


def _longest(app: dict[str, Any]) -> int:
    return max((int(process["stop_timeout"]) for process in app["processes"]), default=0)


def start_others(app: dict[str, Any], store: Store, release: Release, colour: str, patience: int) -> tuple[str, str]:
    """Have the processes beside the web one change over to a release. (Nothing or what is wrong, its last lines).

    Those of the other colour end first, with time for what they are at: two schedulers would do everything twice.
    """
    if app["type"] == "compose":
        problem, said = app_stack.bring(app, store, release, patience)
        return problem, said
    began = time.time()
    stop(*others(app, other(colour)), patience=_longest(app))
    if app["type"] == "container":
        app_container.end_beside(app["name"], other(colour), _longest(app))
    units = others(app, colour, release)
    if not units:
        return "", ""
    app_service.systemctl("enable", "--quiet", *units)
    code, said = app_service.systemctl("restart", *units)
    unit, problem = (units[0], f"it does not start: {said}") if code != 0 else app_service.settled(units, patience)
    return (f"{unit}: {problem}", log_of(unit, release, began, "")) if problem else ("", "")


def start(
    app: dict[str, Any], store: Store, release: Release, colour: str, patience: int, hook: Callable[[str], str]
) -> tuple[str, str]:
    """Start a release under a colour that does not serve. (Nothing or what is wrong with it, its last lines).

    `hook` runs the release's own for a moment, and returns what went wrong.
    """
    began = time.time()
    unit = store.unit(colour)
    stop_colour(app, store, colour)
    if app["type"] == "compose":
        # A store, say, that is new; the others become those of the release once it is healthy.
        problem, log = app_stack.ensure(app, store, release, app["health_timeout"] or patience)
        if problem:
            return problem, log
    if not app["second_port"]:
        # Both would want the one port, and nobody can choose between them.
        app_service.systemctl("stop", *store.idle_units(), store.live_unit)
    store.point(colour, release.id)
    gate = gate_for(app, unit, release, colour, patience)
    problem = gate.launch()
    if not problem:
        said = hook("before_health")
        if said:
            return said, ""
        problem = gate.wait()
    if not problem:
        said = hook("after_health")
        return (said, "") if said else start_others(app, store, release, colour, gate.patience)
    return str(app_env.scrub(problem, environment_of(release))), log_of(unit, release, began, gate.path)


def give_up(app: dict[str, Any], store: Store, colour: str, patience: int) -> str:
    """End what was started beside the live release, and say what serves."""
    live = store.release(store.healthy) or store.release(store.current)
    if store.colour == colour or live is None:
        for each in COLOURS:
            stop_colour(app, store, each)
        store.point(colour, "")
        if app["type"] == "compose":
            app_stack.end_others(app, None)
        return "there is no earlier release, so the app is stopped"
    stop_colour(app, store, colour)
    store.point(colour, "")
    if app["type"] == "compose":
        problem = app_stack.give_back(app, store, live, patience)
        if problem:
            return f"release {live.id} goes on serving, but {problem}"
    unit = store.live_unit
    units = [unit, *others(app, store.colour, live)]
    states = app_service.show(units)
    if all(app_service.is_up(states.get(each)) for each in units):
        return f"release {live.id} goes on serving"
    problem = ""
    if not app_service.is_up(states.get(unit)):
        problem = gate_for(app, unit, live, store.colour, patience).start()
    elif not start_others(app, store, live, store.colour, patience)[0]:
        return f"release {live.id} goes on serving"
    problem = problem or start_others(app, store, live, store.colour, patience)[0]
    if problem:
        return f"release {live.id} was started again but is not healthy either: {problem}"
    return f"release {live.id} was started again and is serving"


def connections_of(app: dict[str, Any], store: Store, colour: str) -> tuple[int, Sequence[str]]:
    """The port of a release that serves, and the tables that list the connections to it."""
    release = store.release(store.release_of(colour))
    inside = (release.record.get("container") or {}).get("port") if release else None
    if inside is None:
        return port_of(app, colour), app_service.TABLES
    return int(inside), app_container.tables(app["name"], colour)


def _before(app: dict[str, Any], store: Store, colour: str) -> list[str]:
    """The units of the release that served before the one of that colour."""
    return [store.unit(other(colour)), *([store.single_unit] if store.single else []), *others(app, other(colour))]


def settle(app: dict[str, Any], store: Store, release: Release, colour: str) -> None:
    """Make a release that serves already the live one for good, alone enabled at boot."""
    store.switch(release.id)
    store.confirm(release.id, colour, others(app, colour, release))
    app_service.systemctl("disable", "--quiet", *_before(app, store, colour))


def end_before(app: dict[str, Any], store: Store, release: Release, colour: str, before: str, patience: float) -> str:
    """End what ran before a release that is live now, under the colour `before`. Says what had to be cut off."""
    cut = 0
    if before and before != colour and app["second_port"]:
        port, tables = connections_of(app, store, before)
        cut = app_service.drain(port, patience, tables)
    stop(*_before(app, store, colour), patience=_longest(app))
    if store.single:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(store.units, store.single_unit))
        app_service.systemctl("daemon-reload")
    store.point(other(colour), "")
    if app["type"] == "compose":
        app_stack.end_others(app, release)
    return f"{cut} connections were cut off after {int(patience)} seconds" if cut else ""
