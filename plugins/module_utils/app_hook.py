"""What an app has run at certain moments of its deploy, and what it has run once and never again."""

from __future__ import annotations

import os
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_env,
    app_service,
    app_stack,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Release
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import last_lines

#: Seconds after which a hook is stopped.
PATIENCE = 900


def run_script(app: dict[str, Any], release: Release, script: str, patience: int, lock: int | None) -> tuple[int, str]:
    """Run a script of the release as its service would; returns its exit status and what it said, without secrets."""
    environment_file = os.path.join(release.path, "env")
    with open(environment_file, encoding="utf-8") as stream:
        environment = app_env.from_file(stream.read())
    unit = "{}-{}.service".format(app["name"], script.replace(".", "-"))
    properties = ["EnvironmentFile=" + environment_file]
    if app["type"] == "container" and script in app_container.SQL_SCRIPTS and app_container.has_sql(release.path):
        properties += app_container.sql_properties(release.path)
        command = app_container.sql_command(script, release.id)
        code, output = app_service.run_once(unit, properties, command, patience, lock)
    elif app["type"] == "container":
        code, output = app_container.run_once(app["name"], release.path, script, patience, lock)
    elif app["type"] == "compose":
        code, output = app_stack.run_once(app["name"], release, script, patience, lock)
    else:
        state = "shipshape/" + app["name"]
        folder = "public" if app["type"] == "static" else "src"
        properties += ["User=" + app["user"], "Group=" + app["user"]]
        properties += ["WorkingDirectory=" + os.path.join(release.path, folder), "StateDirectory=" + state]
        properties += [f"Environment=HOME=/var/lib/{state} PYTHONUNBUFFERED=1"]
        command = [os.path.join(release.path, script)]
        code, output = app_service.run_once(unit, properties, command, patience, lock)
    return code, str(app_env.scrub(output, environment))


def run(app: dict[str, Any], release: Release, moment: str, lock: int | None = None) -> str:
    """Run the release's own hook for a moment, if it has one. Nothing when it went well, otherwise what went wrong."""
    script = "hook." + moment
    if not os.path.exists(os.path.join(release.path, script)):
        return ""
    code, output = run_script(app, release, script, PATIENCE, lock)
    command = (release.record.get("hooks") or {}).get(moment) or moment
    return f"hook {moment} `{command}` failed (exit {code}). Its last lines:\n{last_lines(output)}" if code != 0 else ""
