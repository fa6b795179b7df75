#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_start
short_description: Start a release of an app beside the one that serves, and wait until it is healthy
version_added: 0.1.0
description:
  - Starts the release under the colour that does not serve, on a port of its own, and waits until its health path
    answers; on the way there its hooks are run. When it does not answer, or one of these fails, the release is stopped
    and, if it is new, removed, and the task fails with the last lines of its log; nothing that serves was touched.
  - An app without C(second_port) has one port. Its old release is stopped before, and started again when the new one
    fails.
  - Of a static app there is nothing to start.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release: {description: Id of the release., type: str, required: true}
  colour: {description: The colour to start it under., type: str, choices: [blue, green], required: true}
  run: {description: The run that holds the app's lock., type: str, default: ""}
  timeout: {description: Seconds a release may take until it is healthy., type: int, default: 60}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Deploy | Start the release
  shipshape.droplet.app_start:
    app: "{{ (app_list | shipshape.droplet.app_specs)['shop'] }}"
    release: 20260214T050000Z-1a2b3c4
    colour: green
"""

RETURN = r"""
release: {description: Id of the release., type: str, returned: success}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_hook, app_lock, app_process, app_trail
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, locked
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import PROCESS_TYPES


def start(app: dict[str, Any], store: Store, name: str, colour: str, patience: int) -> None:
    release = store.find(name)
    if store.colour == colour:
        raise AppError(app["name"], "start", f"{colour} is the colour that serves; run again")
    step = "health"

    def hook(moment: str) -> str:
        nonlocal step
        problem = str(app_hook.run(app, release, moment))
        step = moment if problem else "health"
        return problem

    problem, log = hook("before_start"), ""
    if not problem:
        problem, log = app_process.start(app, store, release, colour, patience, hook)
    problem = problem or hook("after_start")
    if not problem:
        return
    serving = app_process.give_up(app, store, colour, patience)
    if not release.activated:
        release.remove()
    version = release.record.get("version")
    said = f"{problem}; {serving}. Its log:\n{log}" if log else f"{problem}\n{serving}"
    raise AppError(app["name"], step, f"release {release.id} ({version}): {said}")


def work(module: AnsibleModule) -> dict[str, Any]:
    app, name = module.params["app"], module.params["release"]
    if module.check_mode or app["type"] not in PROCESS_TYPES:
        return {"changed": True, "release": name}
    store = Store(app["name"], app["directory"])
    step = app_trail.step(app["name"], name, "start", app_lock.who(store))
    with step, locked(app["name"], store.directory, "lock"):
        app_lock.hold(store, module.params["run"])
        start(app, store, name, module.params["colour"], module.params["timeout"])
    return {"changed": True, "release": name}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="dict", required=True, options=app_options()),
            release=dict(type="str", required=True),
            colour=dict(type="str", choices=["blue", "green"], required=True),
            run=dict(type="str", default=""),
            timeout=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    execute(module, work, "start")


if __name__ == "__main__":
    main()
