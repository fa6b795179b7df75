#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_build
short_description: Build a release of an app beside the one that serves
version_added: 0.1.0
description:
  - Fetches the commit as the app's user and exports its folder into a directory of its own. A python app gets a
    virtualenv (shared by all its releases with the same requirements). What C(build) says is run there with the app's
    environment. An app with a process gets its environment file and its scripts; a static one becomes root's and
    readable by all. Of a container app the image is pulled, and the scripts are written that start a container of it.
    Of a compose app Compose resolves the file and builds its images.
  - Nothing that serves is touched. A build that fails leaves nothing behind.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release: {description: Id of the new release., type: str, required: true}
  commit: {description: "The commit to build, of an image its digest.", type: str, required: true}
  environment:
    description: The app's environment, sealed by the filter C(shipshape.droplet.app_environment).
    type: str
    default: ""
  registries:
    description: The logins for the registries of images, sealed by the filter C(shipshape.droplet.app_registries).
    type: str
    default: ""
  deploy_keys:
    description: The keys for repositories over ssh, sealed by the filter C(shipshape.droplet.app_deploy_keys).
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

import contextlib
import os
import shlex
import shutil
import stat
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_env,
    app_lock,
    app_stack_build,
    app_trail,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_archive import Archive
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import accesses, app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_git import Mirror
from ansible_collections.shipshape.droplet.plugins.module_utils.app_ground import state_directory
from ansible_collections.shipshape.droplet.plugins.module_utils.app_python import ensure_venv
from ansible_collections.shipshape.droplet.plugins.module_utils.app_registry import Login
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    last_lines,
    locked,
    run,
    write_file,
    write_record,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import SQL_PROGRAM

SCRIPT = """#!/bin/sh
# Written by Shipshape for release {release}.
set -eu
{setting}
SHIPSHAPE_RELEASE={release} SHIPSHAPE_COMMIT={commit}
export PATH SHIPSHAPE_RELEASE SHIPSHAPE_COMMIT
{command}
"""
#: Where the programs of a release lie.
SETTINGS = {
    "python": "PATH={path}/venv/bin:$PATH VIRTUAL_ENV={path}/venv\nexport VIRTUAL_ENV",
    "command": "PATH={path}/src/node_modules/.bin:$PATH",
    "static": "PATH={path}/src/node_modules/.bin:$PATH",
}


#: Seconds after which a build is stopped.
BUILD_TIMEOUT = 3600


def owned_directory(path: str, account: Account) -> None:
    os.mkdir(path, 0o755)
    os.chown(path, account.uid, account.gid)


class Builder:
    """What one release is made with."""

    def __init__(
        self, app: dict[str, Any], store: Store, path: str, commit: str, environment: dict[str, str], lock: int
    ) -> None:
        self.app, self.store, self.path, self.commit, self.lock = app, store, path, commit, lock
        self.account, self.environment = Account(app["user"]), environment
        self.source = os.path.join(path, "src")

    def venv(self) -> str:
        """The virtualenv; returns its key."""
        key, _made = ensure_venv(self.store, self.account, self.source, self.commit, self.lock)
        os.symlink(os.path.join("..", "..", "venvs", key), os.path.join(self.path, "venv"))
        return str(key)

    def compile(self) -> None:
        # The service cannot write here. A file that does not compile may be for another Python and never be imported.
        run(self.account, ["python3", "-m", "compileall", "-q", self.source], lock=self.lock)

    def write_scripts(self) -> None:
        """What the units and the steps to come run, each for itself."""
        app = self.app
        commands = {"run": app["command"] and "exec " + app["command"]}
        commands.update({name: app[name] for name in ("build", "migrate", "seed")})
        if app["migrate_sql"]:
            folder = shlex.quote(app["migrate_sql"])
            commands["migrate"] = f"exec python3 {SQL_PROGRAM} up {folder} {os.path.basename(self.path)}"
            commands["unmigrate"] = f"exec python3 {SQL_PROGRAM} down {folder}"
        commands.update({"process." + each["name"]: "exec " + each["command"] for each in app["processes"]})
        commands.update({"cron." + each["name"]: each["command"] for each in app["cron"]})
        commands.update({"hook." + moment: command for moment, command in app["hooks"].items()})
        setting = SETTINGS[app["type"]].format(path=self.path)
        release = os.path.basename(self.path)
        for name, command in commands.items():
            if command:
                if app_env.past_the_pooler(name, self.environment):
                    command = f"DATABASE_URL=$DIRECT_DATABASE_URL\n{command}"
                text = SCRIPT.format(release=release, commit=self.commit, setting=setting, command=command)
                write_file(os.path.join(self.path, name), text, 0o750, 0, self.account.gid)

    def share(self) -> None:
        """Put links to what all releases have in common in the place of folders of the code."""
        for name in self.app["shared"]:
            kept = os.path.join(state_directory(self.app["name"]), name)
            run(self.account, ["mkdir", "-p", "--", kept])
            link = os.path.join(self.source, name)
            folder = os.path.dirname(name)
            inside = os.path.normpath(os.path.join(os.path.realpath(self.source), folder))
            if os.path.realpath(os.path.join(self.source, folder)) != inside:
                raise AppError(self.app["name"], "shared", f"the folder that {name} is in is a link in the code")
            if os.path.isdir(link) and not os.path.islink(link):
                shutil.rmtree(link)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(link)
            run(self.account, ["mkdir", "-p", "--", os.path.dirname(link)])
            os.symlink(kept, link)

    def work(self) -> None:
        """Run what makes the release out of the code, as the app's user, with the app's environment."""
        for step in ("hook.before_build", "build", "hook.after_build"):
            script = os.path.join(self.path, step)
            if not os.path.exists(script):
                continue
            extra = {**self.environment, "HOME": self.store.cache, "TMPDIR": self.store.cache}
            code, said = run(
                self.account, [script], cwd=self.source, timeout=BUILD_TIMEOUT, lock=self.lock, extra=extra
            )
            if code != 0:
                command = self.app["build"] if step == "build" else self.app["hooks"][step.partition(".")[2]]
                said = last_lines(app_env.scrub(said, self.environment))
                raise AppError(self.app["name"], "build", f"`{command}` failed (exit {code}). Its last lines:\n{said}")

    def publish(self) -> None:
        """Of a static site that was built, keep what is shown."""
        folder = os.path.join(self.source, self.app["publish"])
        if not os.path.realpath(folder).startswith(os.path.realpath(self.source)) or not os.path.isdir(folder):
            raise AppError(
                self.app["name"],
                "build",
                "`{}` made no folder {}; say in `publish` where it puts the site".format(
                    self.app["build"], self.app["publish"]
                ),
            )
        os.rename(os.path.realpath(folder), os.path.join(self.path, "public"))
        shutil.rmtree(self.source, ignore_errors=True)
        for name in ("build", "hook.before_build", "hook.after_build"):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(os.path.join(self.path, name))


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


def fetch(module: AnsibleModule, store: Store, account: Account, lock: int) -> Mirror | Archive:
    """The repository, with the commit in it; or the archive."""
    app, commit = module.params["app"], module.params["commit"]
    if app["archive"]:
        return Archive(app["name"], account, store.directory, app["archive"], lock)
    access = accesses(module, [app])[app["name"]]
    mirror = Mirror(app["name"], account, store.repository, app["git"], lock, access)
    if mirror.commit(commit) != commit:
        mirror.fetch()
        if mirror.commit(commit) != commit:
            shown = app_env.without_password(app["git"])
            raise AppError(app["name"], "fetch", f"commit {commit} is on no branch and no tag of {shown}")
    return mirror


def build(module: AnsibleModule, store: Store, account: Account, lock: int) -> dict[str, Any]:
    app, commit = module.params["app"], module.params["commit"]
    path = os.path.join(store.releases_directory, module.params["release"])
    if os.path.lexists(path):
        raise AppError(app["name"], "build", "release {} is there already; run again".format(module.params["release"]))
    static, container, stack = (app["type"] == kind for kind in ("static", "container", "compose"))
    mirror = None if container else fetch(module, store, account, lock)
    values = {str(name): str(value) for name, value in app_env.unseal(module.params["environment"]).items()}
    warnings: list[str] = []
    login = app_container.logins(module, module.params["registries"]).get(app["name"], Login())
    builder = Builder(app, store, path, commit, values, lock)
    os.mkdir(path, 0o755 if static else 0o700 if container else 0o750)
    os.chown(path, 0, 0 if static or container else account.gid)
    try:
        venv = ""
        if mirror is not None:
            target = os.path.join(path, "public" if static and not app["build"] else "src")
            owned_directory(target, account)
            if static and app["build"]:
                # Until it is built, the app's user works here; then it is root's, and everybody reads it.
                os.chmod(path, 0o755)
            mirror.export(commit, app["path"], target)
            venv = builder.venv() if app["type"] == "python" else ""
            if not stack and (not static or app["build"] or app["hooks"]):
                builder.write_scripts()
            if not stack and (not static or app["build"]):
                builder.share()
                builder.work()
        if static:
            if app["build"]:
                builder.publish()
            build_static(app, path)
        elif container:
            app_container.build(app, module.params["release"], path, commit, values, login, lock)
        elif stack:
            warnings = app_stack_build.build(app, store, module.params["release"], path, values, login, lock)
        elif app["type"] == "python":
            builder.compile()
        if not static or app["hooks"]:
            owner = (0, 0) if container or stack or static else (account.uid, account.gid)
            write_file(os.path.join(path, "env"), app_env.to_file(values), 0o600, *owner)
        record = dict(
            app=app["name"],
            type=app["type"],
            commit=commit,
            version=app["version"],
            folder=app["path"],
            settings=app["settings_fingerprint"],
            environment=app["environment_fingerprint"],
            health={
                "address": app["address"],
                "port": app["port"],
                "path": app["health"],
                "status": app["health_status"],
                "body": app["health_body"],
            },
            processes=[process["name"] for process in app["processes"]],
            hooks=app["hooks"],
            container=app["container"],
            venv=venv,
            created=now(),
            by=module.params["by"],
            activated="",
            rolled_back="",
        )
        os.sync()
        write_record(os.path.join(path, "release.json"), record)
    except (AppError, OSError) as error:
        # In words while the disk is as it was found; then without what is half made.
        said = error if isinstance(error, AppError) else AppError(app["name"], "build", str(error))
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(path)
        raise said from error
    for warning in warnings:
        module.warn(warning)
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
            registries=dict(type="str", default="", no_log=True),
            deploy_keys=dict(type="str", default="", no_log=True),
            by=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    execute(module, work, "build")


if __name__ == "__main__":
    main()
