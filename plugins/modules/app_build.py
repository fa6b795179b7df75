#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_build
short_description: Build a release of an app beside the one that serves
version_added: 0.1.0
description:
  - Fetches the commit as the app's user and exports its folder into a directory of its own. A python app gets a
    virtualenv (shared by all its releases with the same requirements), its environment file and its start script; a
    static one becomes root's and readable by all.
  - Nothing that serves is touched. A build that fails leaves nothing behind.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release: {description: Id of the new release., type: str, required: true}
  commit: {description: The commit to build., type: str, required: true}
  environment:
    description: The app's environment, sealed by the filter C(shipshape.droplet.app_environment).
    type: str
    default: ""
  by: {description: Who deploys., type: str, default: ""}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Deploy | Build a release
  shipshape.droplet.app_build:
    app: "{{ (app_list | shipshape.droplet.app_specs)['shop'] }}"
    release: 20260214T050000Z-1a2b3c4
    commit: 1a2b3c4d5e6f708192a3b4c5d6e7f8091a2b3c4d
    environment: "{{ app_list | shipshape.droplet.app_environment('shop') }}"
"""

RETURN = r"""
release: {description: Id of the release., type: str, returned: success}
path: {description: Where it lies., type: str, returned: success}
venv: {description: Whether a virtualenv was made or one shared., type: str, returned: success}
"""

import base64
import contextlib
import json
import os
import shutil
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_env, app_lock, app_trail
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_git import Mirror
from ansible_collections.shipshape.droplet.plugins.module_utils.app_python import ensure_venv
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    locked,
    run,
    write_file,
    write_record,
)

SCRIPT = """#!/bin/sh
# Written by Shipshape for release {release}.
set -eu
PATH={path}/venv/bin:$PATH
VIRTUAL_ENV={path}/venv
export PATH VIRTUAL_ENV
{command}
"""


def owned_directory(path: str, account: Account) -> None:
    os.mkdir(path, 0o755)
    os.chown(path, account.uid, account.gid)


def build_python(app: dict[str, Any], store: Store, account: Account, path: str, commit: str, lock: int) -> str:
    """Everything a python release is started from; returns the key of its virtualenv."""
    source = os.path.join(path, "src")
    key, _made = ensure_venv(store, account, source, commit, lock)
    os.symlink(os.path.join("..", "..", "venvs", key), os.path.join(path, "venv"))
    # The service cannot write here. A file that does not compile may be for another Python and never be imported.
    run(account, ["python3", "-m", "compileall", "-q", source], lock=lock)
    commands = {"run": "exec " + app["command"], "migrate": app["migrate"]}
    for name, command in commands.items():
        if command:
            script = SCRIPT.format(release=os.path.basename(path), path=path, command=command)
            write_file(os.path.join(path, name), script, 0o750, 0, account.gid)
    return str(key)


def build_static(app: dict[str, Any], path: str) -> None:
    """Make the files root's, readable by the web server, and keep them from leading it elsewhere."""
    public = os.path.join(path, "public")
    inside = os.path.realpath(public) + os.sep
    for folder, folders, files in os.walk(public):
        for name in folders + files:
            entry = os.path.join(folder, name)
            if os.path.islink(entry) and not (os.path.realpath(entry) + os.sep).startswith(inside):
                shown = os.path.relpath(entry, public)
                raise AppError(app["name"], "export", f"{shown} is a link to {os.readlink(entry)}, out of the site")
            os.lchown(entry, 0, 0)
            if not os.path.islink(entry):
                os.chmod(entry, 0o755 if stat.S_ISDIR(os.lstat(entry).st_mode) else 0o644)
    os.chown(public, 0, 0)


def build(module: AnsibleModule, store: Store, account: Account, lock: int) -> dict[str, Any]:
    app, commit = module.params["app"], module.params["commit"]
    path = os.path.join(store.releases_directory, module.params["release"])
    if os.path.lexists(path):
        raise AppError(app["name"], "build", "release {} is there already; run again".format(module.params["release"]))
    mirror = Mirror(app["name"], account, store.repository, app["git"], lock)
    if mirror.commit(commit) != commit:
        mirror.fetch()
        if mirror.commit(commit) != commit:
            shown = app_env.without_password(app["git"])
            raise AppError(app["name"], "fetch", f"commit {commit} is on no branch and no tag of {shown}")

    static = app["type"] == "static"
    os.mkdir(path, 0o755 if static else 0o750)
    os.chown(path, 0, 0 if static else account.gid)
    try:
        target = os.path.join(path, "public" if static else "src")
        owned_directory(target, account)
        mirror.export(commit, app["path"], target)
        venv = ""
        if static:
            build_static(app, path)
        else:
            venv = build_python(app, store, account, path, commit, lock)
            values = json.loads(base64.b64decode(module.params["environment"] or "e30="))
            write_file(os.path.join(path, "env"), app_env.to_file(values), 0o600, account.uid, account.gid)
        record = dict(
            app=app["name"],
            type=app["type"],
            commit=commit,
            version=app["version"],
            folder=app["path"],
            settings=app["settings_fingerprint"],
            environment=app["environment_fingerprint"],
            health={"address": app["address"], "port": app["port"], "path": app["health"]},
            venv=venv,
            created=now(),
            by=module.params["by"],
            activated="",
            rolled_back="",
        )
        os.sync()
        write_record(os.path.join(path, "release.json"), record)
    except (AppError, OSError):
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        raise
    return {"changed": True, "release": module.params["release"], "path": path, "venv": venv}


def work(module: AnsibleModule) -> dict[str, Any]:
    app = module.params["app"]
    store = Store(app["name"], app["directory"])
    if module._diff:
        before = "{}: {}\n".format(app["name"], store.current or "no release")
        diff = {"before": before, "after": "{}: {}\n".format(app["name"], module.params["release"])}
    else:
        diff = {}
    if module.check_mode:
        path = os.path.join(store.releases_directory, module.params["release"])
        return {"changed": True, "release": module.params["release"], "path": path, "venv": "", "diff": diff}
    step = app_trail.step(app["name"], module.params["release"], "build", app_lock.who(store))
    with step, locked(app["name"], store.directory, "lock") as lock:
        if store.is_overtaken(module.params["release"]):
            raise AppError(app["name"], "lock", "a later run has taken this app over; that one counts")
        return dict(build(module, store, Account(app["user"]), lock), diff=diff)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="dict", required=True, options=app_options()),
            release=dict(type="str", required=True),
            commit=dict(type="str", required=True),
            environment=dict(type="str", default="", no_log=True),
            by=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    execute(module, work)


if __name__ == "__main__":
    main()
