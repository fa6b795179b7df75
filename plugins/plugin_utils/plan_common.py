"""What the parts of the plan have in common: their types, their error, and how the values of an app are read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..module_utils.app_types import PROCESS_TYPES
from .names import app_port, second_port

Apps = Mapping[str, Mapping[str, Any]]
Row = dict[str, Any]

STATE_DIRECTORY = "/var/lib/shipshape"


class PlanError(ValueError):
    """The inventory asks for something that cannot be planned; the message says what."""


def text(value: Any) -> str:
    """A value of the environment as the text that a process sees: YAML's true is `true`, not Python's `True`."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def texts(value: str | Iterable[str] | None) -> list[str]:
    """What may be said as one text or as several, or not at all."""
    if value is None:
        return []
    return [value] if isinstance(value, str) else list(value)


def with_process(apps: Apps) -> dict[str, Mapping[str, Any]]:
    """The apps that listen on ports of their own, on the hosts of the group `app`."""
    return {name: app for name, app in apps.items() if app.get("type") in PROCESS_TYPES}


def with_database(apps: Apps) -> dict[str, Mapping[str, Any]]:
    """The apps that have a database, or schemas in that of another."""
    return {name: app for name, app in apps.items() if app.get("database") is not None}


def port_of(name: str, app: Mapping[str, Any]) -> int:
    """The port of an app, or of the first of two releases of it."""
    return int(app.get("port") or app_port(name))


def ports_of(name: str, app: Mapping[str, Any]) -> list[int]:
    """The port of an app and, when a proxy can switch between two releases of it, the second one's."""
    port = port_of(name, app)
    return [port, second_port(port)] if app.get("domains") else [port]


def health_of(health: str | Mapping[str, Any] | None) -> Row:
    """A path alone, or with what has to come of it and by when."""
    if not isinstance(health, Mapping):
        return {"health": str(health or "")}
    names = {"status": "health_status", "body": "health_body", "start_period": "health_timeout"}
    return {"health": str(health["path"]), **{names[key]: health[key] for key in names if key in health}}
