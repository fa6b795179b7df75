"""The environment of an app: where it listens, where its data is, and what the user adds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..module_utils.app_types import IMAGE_TYPES
from .plan_common import PlanError, port_of, text
from .plan_postgresql import database_role, database_urls
from .plan_redis import Instances, redis_urls
from .topology import Topology


def environment_of(
    name: str,
    app: Mapping[str, Any],
    topology: Topology,
    host: str,
    passwords: Mapping[str, str] | None,
    pooler: int,
    redis: Instances,
) -> dict[str, str]:
    """What the process of an app finds in its environment; without `passwords`, no URL that takes one of these."""
    container = app["type"] in IMAGE_TYPES
    environment = {
        "HOST": topology.app_address(host, public=bool(app.get("domains"))),
        "PORT": str(port_of(name, app)),
    }
    if container:
        told = app.get("container_port") and app["type"] == "container"  # a Compose file has an environment of its own
        environment = {"HOST": "0.0.0.0", "PORT": str(app["container_port"])} if told else {}
    if (database := app.get("database")) is not None:
        role = database_role(name, app)
        password = database.get("password")
        if not password and passwords is not None:
            if role not in passwords:
                raise PlanError(f"the password of database role {role} was not read before app {name} was planned")
            password = passwords[role]
        if password:
            environment.update(database_urls(app, topology, host, role, str(password), pooler))
    if passwords is not None:
        environment.update(redis_urls(name, app, redis, topology, host, passwords))
    environment.update((key, text(value)) for key, value in (app.get("env") or {}).items())
    return environment
