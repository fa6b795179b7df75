"""The ground an app stands on: a system user and directories of its own, and nothing half-made among its releases."""

from __future__ import annotations

import os
import pwd
import stat
from typing import Any, Callable

from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    last_lines,
    locked,
    run,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import PROCESS_TYPES

VENDOR_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system")


def check_name(app: dict[str, Any]) -> None:
    """Refuse to take over what belongs to a package or to a person."""
    if app["type"] in PROCESS_TYPES:
        for directory in VENDOR_UNITS:
            for unit in (app["name"] + ".service", app["name"] + "@.service"):
                path = os.path.join(directory, unit)
                if os.path.lexists(path):
                    message = f"{path} is a service of this system; give the app another name in `apps`"
                    raise AppError(app["name"], "name", message)
    try:
        entry = pwd.getpwnam(app["user"])
    except KeyError:
        return
    if entry.pw_dir != app["directory"]:
        raise AppError(
            app["name"],
            "user",
            "user {} exists and is not this app's (home {}, not {}); give the app another name in `apps`".format(
                app["user"], entry.pw_dir, app["directory"]
            ),
        )


def ensure_account(app: dict[str, Any], check_mode: bool) -> list[str]:
    if Account(app["user"]).exists:
        return []
    if not check_mode:
        command = ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        command += ["--home-dir", app["directory"], "--comment", "Shipshape app " + app["name"], app["user"]]
        code, output = run(None, command)
        if code != 0:
            raise AppError(app["name"], "user", "cannot create user {}:\n{}".format(app["user"], last_lines(output)))
    return ["user {}".format(app["user"])]


def ensure_directory(path: str, mode: int, gid: int | None, check_mode: bool) -> list[str]:
    """Root's, open to the app's group where it has to be."""
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        if not check_mode:
            os.mkdir(path, mode)
            os.chown(path, 0, gid or 0)
            os.chmod(path, mode)
        return [f"directory {path}"]
    if not stat.S_ISDIR(found.st_mode):
        raise NotADirectoryError(f"{path} is no directory; move it away")
    if gid is not None and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (0, gid, mode):
        if not check_mode:
            os.chown(path, 0, gid)
            os.chmod(path, mode)
        return [f"owner and mode of {path}"]
    return []


def state_directory(app: str) -> str:
    """What an app may write to, and what all its releases share."""
    return f"/var/lib/shipshape/{app}"


def ensure_own_directory(path: str, account: Account, check_mode: bool) -> list[str]:
    """One in which the app's user may write."""
    if os.path.isdir(path):
        return []
    if not check_mode:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        os.mkdir(path, 0o750)
        os.chown(path, account.uid, account.gid)
    return [f"directory {path}"]


def prepare(app: dict[str, Any], check_mode: bool, lock: Callable[[Store], None]) -> list[str]:
    """User, directories, the lock, and nothing half-made among the releases."""
    # An image brings its users along, and what starts it is root's business alone.
    container = app["type"] == "container"
    changes = [] if container else ensure_account(app, check_mode)
    account = Account(app["user"])
    # The web server reads static files; a python app's code concerns nobody but its user.
    mode, group = (0o755, 0) if app["type"] == "static" else (0o750, account.gid)
    mode, group = (0o700, 0) if container else (mode, group)
    store = Store(app["name"], app["directory"])
    folders = [store.directory, store.releases_directory] + ([store.venvs] if app["type"] == "python" else [])
    for folder in folders:
        changes += ensure_directory(folder, mode, group if account.exists or container else None, check_mode)
    if app["build"] or {"before_build", "after_build"} & set(app["hooks"]):
        changes += ensure_own_directory(store.cache, account, check_mode)
    if app["shared"]:
        changes += ensure_own_directory(state_directory(app["name"]), account, check_mode)
    if os.path.isdir(store.directory) and not check_mode:
        with locked(app["name"], store.directory, "lock"):
            lock(store)
            for release in store.leftovers():
                release.remove()
                changes.append(f"unfinished release {release.id}")
            # Under the same lock: what a dead run's worker builds after this look would be found only by the next run.
            store.take_over()
    else:
        changes += [f"unfinished release {release.id}" for release in store.leftovers()]
    return changes
