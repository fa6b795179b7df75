"""Releases of an app that is a Compose file: what Compose is asked to do with them once they are built.

The web service is run by systemd; the other services run as Compose and the engine run them, and are touched only when
a release wants them otherwise. No volume is ever removed.

/srv/<app>/files/<sum>/    files of the code that other services have mounted: the same content has the same path in all
                           releases, so that who mounts it stays as it is
/srv/<app>/services.json   the release whose other services run
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from typing import Any, Iterable, Mapping, Sequence

from ansible_collections.shipshape.droplet.plugins.module_utils import app_compose, app_container, app_env
from ansible_collections.shipshape.droplet.plugins.module_utils.app_service import SETTLED
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Release, Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    AppError,
    last_lines,
    read_record,
    run,
    write_record,
)

FILE = "compose.json"
#: The first that can read a file without a version.
LEAST = (1, 27)
#: Of those who work on a file of theirs, not of a release.
QUIET = {"COMPOSE_IGNORE_ORPHANS": "true", "DOCKER_CONFIG": "/nonexistent"}
#: What Compose says of its own doings, on its way to what was asked for.
CHATTER = re.compile(r"^(Creating \S+ \.\.\.( done)?\s*| (Network|Volume|Container) \S+  \w+)$")


def command(app: str) -> list[str]:
    """How Compose is called on this host."""
    for words in (["docker", "compose"], ["docker-compose"]):
        code, said = run(None, [*words, "version", "--short"], timeout=60, extra=QUIET)
        found = re.search(r"(\d+)\.(\d+)", said) if code == 0 else None
        if found and (int(found[1]), int(found[2])) >= LEAST:
            return words
        if found:
            raise AppError(
                app,
                "compose",
                f"Compose is of version {found[0]} here and must be 1.27 or later; take Docker from its own packages:"
                " `docker_origin: upstream`",
            )
    raise AppError(app, "compose", "Compose is not installed here; run playbooks/docker.yml")


def compose(app: str, release: Release, *words: str, timeout: int = 600, lock: int | None = None) -> tuple[int, str]:
    """Have Compose do something with the services of a release."""
    file = os.path.join(release.path, FILE)
    code, said = run(None, [*command(app), "-p", app, "-f", file, *words], timeout=timeout, lock=lock, extra=QUIET)
    return code, app_env.scrub(without_chatter(said), app_compose.values_of(read(release)))


def without_chatter(said: str) -> str:
    return "\n".join(line for line in said.splitlines() if not CHATTER.match(line))


def read(release: Release) -> dict[str, Any]:
    """The file that a release is run from."""
    return read_record(os.path.join(release.path, FILE)) or {}


def rest_of(release: Release) -> list[str]:
    """The services beside the web one."""
    return [str(name) for name in read(release).get(app_compose.NOTES, {}).get("rest", [])]


def run_once(app: str, release: Release, script: str, patience: int, lock: int | None) -> tuple[int, str]:
    """Run a script of the release to its end, after one that an interrupted run has left."""
    code, output = app_container.run_once(app, release.path, script, patience, lock)
    return code, without_chatter(output)


def files_directory(store: Store) -> str:
    return os.path.join(store.directory, "files")


# ---- the services beside the web one


class Running:
    """A container of a service, as the engine tells of it."""

    def __init__(self, told: Mapping[str, Any]) -> None:
        state = told["State"]
        self.id = str(told["Id"])
        self.service = str(told["Config"]["Labels"].get("com.docker.compose.service"))
        self.status, self.exit_code = str(state["Status"]), int(state["ExitCode"])
        self.health = str((state.get("Health") or {}).get("Status") or "")
        self.restarts = int(told.get("RestartCount") or 0)


def running(app: str, services: Iterable[str] | None = None) -> list[Running]:
    """The containers of an app's services, its web one aside; those of some services only, when named."""
    project = ("--filter", f"label=com.docker.compose.project={app}", "--filter", f"label=shipshape.app={app}")
    code, said = app_container.docker("ps", "--all", "--quiet", "--no-trunc", *project)
    if code != 0 or not said.split():
        return []
    code, said = app_container.docker("inspect", "--type=container", *said.split())
    try:
        told = json.loads(said[said.index("[") : said.rindex("]") + 1])
    except ValueError:
        return []
    others = [entry for entry in told if not {"shipshape.release", "shipshape.colour"} & set(entry["Config"]["Labels"])]
    found = [Running(entry) for entry in others]
    return found if services is None else [each for each in found if each.service in set(services)]


def missing(app: str, release: Release) -> list[str]:
    """The services of a release that have no container, or one that does not run though it should."""
    there = running(app)
    may_end = set(read(release).get(app_compose.NOTES, {}).get("may_end", []))
    up = {each.service for each in there if each.status in ("running", "restarting", "paused")}
    up |= {each.service for each in there if each.service in may_end}
    return [service for service in rest_of(release) if service not in up]


def problems(app: Mapping[str, Any], store: Store, live: Release | None) -> list[str]:
    """Why the services of the live release are not what they should be."""
    if live is None or not rest_of(live):
        return []
    shown = _shown(store)
    if shown != live.id:
        return [f"its other services are those of release {shown or 'none'}"]
    down = missing(app["name"], live)
    return [f"its service {', '.join(down)} is not running"] if down else []


def _note(store: Store, release: Release) -> None:
    """Before anything is done: a run that is killed then is known to have begun."""
    write_record(os.path.join(store.directory, "services.json"), {"release": release.id})


def _shown(store: Store) -> str:
    """The release whose services run, as far as that was brought to its end."""
    return str((read_record(os.path.join(store.directory, "services.json")) or {}).get("release") or "")


def ensure(app: Mapping[str, Any], store: Store, release: Release, patience: int) -> tuple[str, str]:
    """Start the services that a release needs and that do not run at all; the others stay as they are."""
    down = missing(app["name"], release)
    if down:
        _note(store, release)
    return _up(app["name"], release, down, patience)


def bring(app: Mapping[str, Any], store: Store, release: Release, patience: int) -> tuple[str, str]:
    """Have the services be those of a release. (Nothing or what is wrong, the last lines of the service)."""
    _note(store, release)
    return _up(app["name"], release, rest_of(release), patience)


def _up(app: str, release: Release, services: Sequence[str], patience: int) -> tuple[str, str]:
    if not services:
        return "", ""
    before = {each.id for each in running(app) if each.status == "running"}
    code, said = compose(app, release, "up", "--detach", "--no-build", "--no-deps", *services, timeout=patience + 300)
    if code != 0:
        return f"the services {', '.join(services)} do not start", last_lines(said)
    return settled(app, release, before, services, patience)


def settled(
    app: str, release: Release, before: set[str], services: Sequence[str], patience: int
) -> tuple[str, str]:  # fmt: skip
    """Wait until what was started anew has stayed up, and is healthy where the file says how to tell."""
    may_end = set(read(release).get(app_compose.NOTES, {}).get("may_end", []))
    began = time.monotonic()
    while True:
        fresh = [each for each in running(app, services) if each.id not in before]
        waiting = ""
        for each in fresh:
            ended = each.status in ("exited", "dead") and not (each.service in may_end and each.exit_code == 0)
            if ended or each.restarts or each.status == "restarting":
                # One that the engine has just started again has no exit status to tell.
                up = each.status == "running"
                why = f"its service {each.service} ended {'again and again' if up else f'(exit {each.exit_code})'}"
                if each.exit_code == 0 and not up:
                    why += ', and is started again and again; say `restart: "no"` of one that is meant to end'
                return why, logs(release, each)
            if each.health == "unhealthy":
                return f"its service {each.service} is unhealthy", logs(release, each)
            if each.health == "starting" or each.status not in ("running", "exited"):
                waiting = each.service
        passed = time.monotonic() - began
        if not waiting and (not fresh or passed >= SETTLED):
            return "", ""
        if passed > max(patience, SETTLED):
            each = next(each for each in fresh if each.service == waiting)
            return f"its service {waiting} is not healthy after {patience} seconds", logs(release, each)
        time.sleep(0.5)


def logs(release: Release, container: Running) -> str:
    _code, said = app_container.docker("logs", "--tail=20", container.id)
    return str(app_env.scrub(last_lines(said), app_compose.values_of(read(release))))


def give_back(app: Mapping[str, Any], store: Store, live: Release, patience: int) -> str:
    """After a release that was given up, have the services be those of the one that serves. What is wrong with that."""
    problem = ""
    if _shown(store) != live.id or missing(app["name"], live):
        problem, _log = bring(app, store, live, patience)
    end_others(app, live)
    return problem


def end_others(app: Mapping[str, Any], live: Release | None) -> None:
    """End the services that a release does not have; of no release, all of them. Their volumes stay."""
    kept = set() if live is None else set(rest_of(live))
    gone = [each.id for each in running(app["name"]) if each.service not in kept]
    if gone:
        app_container.docker("stop", *gone, timeout=300)
        app_container.docker("rm", "--force", *gone)


def prune(store: Store) -> None:
    """Let go of files that no release mounts any more."""
    folder = files_directory(store)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    texts = []
    for release in store.releases():
        with contextlib.suppress(OSError), open(os.path.join(release.path, FILE), encoding="utf-8") as stream:
            texts.append(stream.read())
    for name in names:
        if not any(f"{folder}/{name}/" in text for text in texts):
            shutil.rmtree(os.path.join(folder, name), ignore_errors=True)
