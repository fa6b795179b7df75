#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_finish
short_description: Bring a deploy to its end, for good or back
version_added: 0.1.0
description:
  - For all apps of a run in one trip. A release that serves well becomes the live one, alone enabled at boot; the one
    before is stopped when nobody is connected to it any more, and releases beyond C(keep_releases) are removed.
  - What the release has run at the moments from its switch on is run here. One that fails fails the task, at its end.
  - An app named in O(failed) was led back by the proxy. Its new release is stopped and marked as rolled back, so that
    it is not deployed again by itself, and the task fails with what was seen and the last lines of its log.
  - With O(abandon) all that was prepared is taken away, and the task fails with that text.
options:
  apps:
    description: The apps, as the filter C(shipshape.droplet.app_specs) makes them.
    type: list
    elements: dict
    required: true
  rows:
    description: The apps that this run deploys, as the filter C(shipshape.droplet.app_round) has them.
    type: list
    elements: dict
    required: true
  failed: {description: What was seen of apps that failed after the switch., type: dict, default: {}}
  abandon: {description: Why the whole run is given up before the switch., type: str, default: ""}
  run: {description: The run that holds the lock., type: str, default: ""}
  drain: {description: Seconds that connections to an old release may last., type: int, default: 30}
  timeout: {description: Seconds a release may take until it is healthy., type: int, default: 60}
  webhook: {description: The https URL that hears how it ended., type: str, default: ""}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Deploy | Keep what serves well
  shipshape.droplet.app_finish:
    apps: "{{ (app_list | shipshape.droplet.app_specs).values() | list }}"
    rows: [{name: shop, release: 20260214T050000Z-1a2b3c4, colour: green}]
"""

RETURN = r"""
summary: {description: What happened to each app in one sentence., type: list, elements: str, returned: success}
removed: {description: Ids of the releases that were removed., type: list, elements: str, returned: success}
"""

import contextlib
import socket
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_env,
    app_hook,
    app_lock,
    app_process,
    app_stack,
    app_trail,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, locked
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import IMAGE_TYPES, PROCESS_TYPES


def keep(
    module: AnsibleModule, app: dict[str, Any], store: Store, row: dict[str, Any], who: str
) -> tuple[str, str, list[str]]:
    """Make the release the live one for good. (What a hook has against it, what happened, what was removed)."""
    release, before = store.find(row["release"]), store.release(row.get("given_up") or "")
    if before is not None and before.id > release.id:
        # One that was left for a newer one is not given up: it is where the next rollback leads.
        before.note(rolled_back=now())
    said = f"{app['name']}: release {release.id} ({release.record.get('version')}) is live"
    failed: dict[str, str] = {}

    def hook(moment: str) -> None:
        # The release serves well: whatever this says, there is no reason to go back, nor to leave the rest undone.
        problem = app_hook.run(app, release, moment)
        if problem:
            failed[moment] = problem
            app_trail.note(app["name"], release.id, moment, "failed", who, why=problem.splitlines()[0])

    if app["type"] not in PROCESS_TYPES:
        store.switch(release.id)
        store.confirm(release.id)
        hook("after_switch")
    else:
        colour = store.colour
        app_process.settle(app, store, release, row["colour"])
        hook("after_switch")
        hook("before_stop")
        cut = app_process.end_before(app, store, release, row["colour"], colour, module.params["drain"])
        said += f"; {cut}" if cut else ""
        hook("after_stop")
    for left in store.leftovers():
        left.remove()
    removed = store.prune(app["keep_releases"])
    if failed:
        why = "\n".join(failed.values())
        return f"{app['name']}: {', '.join(failed)}: {said.partition(': ')[2]}, but {why}", "", removed
    return "", said, removed


def take_back(module: AnsibleModule, app: dict[str, Any], store: Store, row: dict[str, Any], why: str) -> str:
    """End a release that fared badly after the switch; returns what the operator has to know."""
    release = store.find(row["release"])
    # What an app has answered may hold anything.
    why = app_env.scrub(why, app_process.environment_of(release))
    log = app_process.log_of(store.unit(row["colour"]), release, time.time() - 3600, app["health"])
    serving = app_process.give_up(app, store, row["colour"], module.params["timeout"])
    if release.id != store.current:
        release.note(activated=release.activated or now(), rolled_back=now())
    version = release.record.get("version")
    return f"{app['name']}: {why}; release {release.id} ({version}) was rolled back; {serving}. Its log:\n{log}"


def abandon(module: AnsibleModule, app: dict[str, Any], store: Store, row: dict[str, Any]) -> None:
    """Take away what was prepared; what serves is not touched, or starts again where it had to make room."""
    if app["type"] in PROCESS_TYPES:
        app_process.give_up(app, store, row["colour"], module.params["timeout"])
    release = store.release(row["release"])
    if release is not None and not release.activated and release.id != store.current:
        release.remove()


def end(module: AnsibleModule, app: dict[str, Any], row: dict[str, Any]) -> tuple[str, str, list[str]]:
    """(what went wrong, what went well, the releases removed) of one app."""
    store, run = Store(app["name"], app["directory"]), module.params["run"]
    who, why = app_lock.who(store), module.params["failed"].get(app["name"], "")
    problem, said = "", ""
    removed: list[str] = []
    with locked(app["name"], store.directory, "lock"):
        app_lock.hold(store, run)
        if module.params["abandon"]:
            abandon(module, app, store, row)
            with contextlib.suppress(OSError):  # a full disk takes no line
                app_trail.note(app["name"], row["release"], "end", "abandoned", who)
        elif why:
            problem = take_back(module, app, store, row, why)
            app_trail.note(
                app["name"], row["release"], why.partition(":")[0], "rolled back", who, why=problem.splitlines()[0]
            )
        else:
            problem, said, removed = keep(module, app, store, row, who)
            outcome = "rollback" if row.get("given_up") else "live"
            app_trail.note(app["name"], row["release"], "end", outcome, who)
        if app["type"] in IMAGE_TYPES:
            app_container.prune(app["name"], store)
        if app["type"] == "compose":
            app_stack.prune(store)
        app_lock.release(store, run)
    return problem, said, removed


def work(module: AnsibleModule) -> dict[str, Any]:
    apps = {app["name"]: app for app in module.params["apps"]}
    problems: list[str] = []
    summary: list[str] = []
    removed: list[str] = []
    for row in [] if module.check_mode else module.params["rows"]:
        try:
            problem, said, gone = end(module, apps[row["name"]], row)
        except AppError as error:
            # The other apps still want to be brought to an end.
            problem, said, gone = str(error), "", []
        problems += [problem] if problem else []
        summary += [said] if said else []
        removed += gone
    if module.params["abandon"]:
        problems = [module.params["abandon"]]
    report = [f"Deployed: {line}" for line in summary] + [f"Deploy failed: {line}" for line in problems]
    for line in report:
        # A log may hold anything; it does not leave the droplet.
        unheard = app_trail.tell(module.params["webhook"], f"{socket.gethostname()}: {line.splitlines()[0]}")
        if unheard:
            module.warn(unheard)
    if problems:
        module.fail_json(msg="\n".join(problems), summary=summary, removed=removed)
    return {"changed": bool(module.params["rows"]), "summary": summary, "removed": removed}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            apps=dict(type="list", elements="dict", required=True, options=app_options()),
            rows=dict(type="list", elements="dict", required=True),
            failed=dict(type="dict", default={}),
            abandon=dict(type="str", default=""),
            run=dict(type="str", default=""),
            drain=dict(type="int", default=30),
            timeout=dict(type="int", default=60),
            webhook=dict(type="str", default="", no_log=True),
        ),
        supports_check_mode=True,
    )
    execute(module, work, "end")


if __name__ == "__main__":
    main()
