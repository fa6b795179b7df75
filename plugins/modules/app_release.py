#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Prepare the ground for apps and say which of them need a new release
version_added: 0.1.0
description:
  - For all apps of a host in one trip. Ensures each app's system user and directories, removes what an interrupted
    deploy has left, asks the git servers which commit each version stands for, and compares with the live release.
  - Starts and stops nothing. M(shipshape.droplet.app_build) and M(shipshape.droplet.app_activate) do what it says.
  - A release that was rolled back is not deployed again by itself, until its commit or its settings change.
options:
  apps:
    description: The apps, as the filter C(shipshape.droplet.app_specs) makes them.
    type: list
    elements: dict
    required: true
  redeploy:
    description: Deploy a release again that was rolled back.
    type: bool
    default: false
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Apps | Compare what runs with what is wanted
  shipshape.droplet.app_release:
    apps: "{{ (app_list | shipshape.droplet.app_specs).values() | list }}"
  register: __app_plan
"""

RETURN = r"""
deploy:
  description: The apps that need a new release, each with name, the new release's id, commit, version and reasons.
  type: list
  elements: dict
  returned: success
activate:
  description: The apps whose release is right but was not confirmed, or whose service is not up, with the reasons.
  type: list
  elements: dict
  returned: success
apps:
  description: The same for all apps, by name.
  type: dict
  returned: success
changes:
  description: What was done to users, directories and leftovers.
  type: list
  elements: str
  returned: success
"""

import os
import pwd
import stat
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_service
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_env import without_password
from ansible_collections.shipshape.droplet.plugins.module_utils.app_git import (
    FULL_COMMIT,
    SHORT_COMMIT,
    Mirror,
    Refs,
    list_refs,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Release, Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    Account,
    AppError,
    last_lines,
    locked,
    run,
)

VENDOR_UNITS = ("/usr/lib/systemd/system", "/lib/systemd/system")


def check_name(app: dict[str, Any]) -> None:
    """Refuse to take over what belongs to a package or to a person."""
    if app["type"] == "python":
        for directory in VENDOR_UNITS:
            path = os.path.join(directory, app["name"] + ".service")
            if os.path.lexists(path):
                raise AppError(
                    app["name"], "name", f"{path} is a service of this system; give the app another name in `apps`"
                )
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


def prepare(app: dict[str, Any], check_mode: bool) -> list[str]:
    """User, directories, and nothing half-made among the releases."""
    changes = ensure_account(app, check_mode)
    account = Account(app["user"])
    # The web server reads static files; a python app's code concerns nobody but its user.
    mode, group = (0o755, 0) if app["type"] == "static" else (0o750, account.gid)
    store = Store(app["name"], app["directory"])
    folders = [store.directory, store.releases_directory] + ([store.venvs] if app["type"] == "python" else [])
    for folder in folders:
        changes += ensure_directory(folder, mode, group if account.exists else None, check_mode)
    if os.path.isdir(store.directory) and not check_mode:
        with locked(app["name"], store.directory, "lock"):
            for release in store.leftovers():
                release.remove()
                changes.append(f"unfinished release {release.id}")
            # Under the same lock: what a dead run's worker builds after this look would be found only by the next run.
            store.take_over()
    else:
        changes += [f"unfinished release {release.id}" for release in store.leftovers()]
    return changes


def remote_refs(apps: list[dict[str, Any]]) -> dict[str, Refs]:
    """What each git server has; every repository is asked once, all at the same time."""
    if run(None, ["git", "--version"])[0] != 0:
        return {}
    asked = {app["git"]: app for app in apps if not FULL_COMMIT.fullmatch(app["version"])}
    with ThreadPoolExecutor(max_workers=8) as pool:
        jobs = {url: pool.submit(list_refs, app["name"], Account(app["user"]), url) for url, app in asked.items()}
        return {url: job.result() for url, job in jobs.items()}


def wanted_commit(app: dict[str, Any], refs: Refs | None, check_mode: bool) -> str:
    """The commit the version stands for; nothing while only a later step can tell (check mode on a bare host)."""
    version = app["version"]
    if FULL_COMMIT.fullmatch(version):
        return str(version)
    if refs is None:
        if check_mode:
            return ""
        raise AppError(app["name"], "source", "git is not installed on this host")
    commit = refs.find(version)
    if not commit and SHORT_COMMIT.fullmatch(version):
        mirror = Mirror(app["name"], Account(app["user"]), Store(app["name"], app["directory"]).repository, app["git"])
        commit = mirror.commit(version)
        if not commit and not check_mode:
            mirror.fetch()
            commit = mirror.commit(version)
        if not commit and check_mode:
            return ""
    if not commit:
        raise AppError(
            app["name"],
            "source",
            "version {!r} is no branch, tag or commit of {}; {}".format(
                version, without_password(app["git"]), refs.describe()
            ),
        )
    return str(commit)


def differences(app: dict[str, Any], live: Release, commit: str) -> list[str]:
    """Why the live release is not what is wanted."""
    reasons = []
    if commit != live.commit:
        reasons.append("commit {} instead of {}".format(commit[:7] or "not known yet", live.commit[:7]))
    if app["settings_fingerprint"] != live.record.get("settings"):
        reasons.append("its command or folder changed")
    if app["environment_fingerprint"] != live.record.get("environment"):
        reasons.append("its environment changed")
    return reasons


def service_problems(store: Store, state: dict[str, str] | None) -> list[str]:
    """Why a service has to be started although its release is the right one."""
    problems = []
    if not app_service.is_up(state):
        problems.append("its service is not running")
    elif state and state.get("UnitFileState") != "enabled":
        problems.append("its service is not enabled")
    if store.activation.get("unit") != store.unit_digest():
        problems.append("its unit changed since it started")
    return problems


def rolled_back_twin(app: dict[str, Any], store: Store, commit: str) -> Release | None:
    """The release with just this content that somebody has rolled back."""
    for release in store.releases():
        if release.rolled_back and not differences(app, release, commit):
            return release
    return None


def decide(
    app: dict[str, Any], commit: str, state: dict[str, str] | None, redeploy: bool
) -> tuple[str, dict[str, Any]]:
    """(deploy, activate or none; what the next steps need to know)."""
    store = Store(app["name"], app["directory"])
    live = store.release(store.current)
    facts = {"name": app["name"], "release": store.current, "commit": commit, "version": app["version"], "reasons": []}
    reasons = differences(app, live, commit) if live else ["it has no release yet"]
    if reasons:
        twin = rolled_back_twin(app, store, commit) if live else None
        if twin is None or redeploy:
            return "deploy", dict(facts, release=store.new_id(commit or "unknown"), reasons=reasons)
        facts["held"] = (
            f"{app['name']}: {app['version']} ({commit[:7]}) was rolled back on {twin.rolled_back} and stays so; "
            f"push a fix, or deploy it again with -e app={app['name']} -e version={app['version']}"
        )
    problems = service_problems(store, state) if app["type"] == "python" else []
    if live and store.activation.get("release") != live.id:
        problems.append(f"release {live.id} was not confirmed")
    return ("activate" if problems else "none"), dict(facts, reasons=problems)


def work(module: AnsibleModule) -> dict[str, Any]:
    apps: list[dict[str, Any]] = module.params["apps"]
    for app in apps:
        check_name(app)
    changes = [change for app in apps for change in prepare(app, module.check_mode)]
    refs = remote_refs(apps)
    states = app_service.show([app["name"] + ".service" for app in apps if app["type"] == "python"])

    plan: dict[str, dict[str, Any]] = {}
    for app in apps:
        commit = wanted_commit(app, refs.get(app["git"]), module.check_mode)
        action, facts = decide(app, commit, states.get(app["name"] + ".service"), module.params["redeploy"])
        plan[app["name"]] = dict(facts, action=action)
        if action == "deploy" and not module.check_mode:
            Store(app["name"], app["directory"]).plan(facts["release"])
        if facts.get("held"):
            module.warn(facts["held"])
    result: dict[str, Any] = dict(
        changed=bool(changes),
        changes=changes,
        apps=plan,
        deploy=[facts for facts in plan.values() if facts["action"] == "deploy"],
        activate=[facts for facts in plan.values() if facts["action"] == "activate"],
    )
    if module._diff and changes:
        result["diff"] = {"before": "", "after": "\n".join(changes) + "\n"}
    return result


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            apps=dict(type="list", elements="dict", required=True, options=app_options()),
            redeploy=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    execute(module, work)


if __name__ == "__main__":
    main()
