#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_hook
short_description: Run what a release has run at a moment between two steps of its deploy
version_added: 0.1.0
description:
  - Runs the release's own hook for that moment, with the user, environment, folder and sandbox of its service. A
    release that has none for it is let alone.
  - When it fails, the task fails with the last lines it said. Nothing is taken away here.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release: {description: Id of the release., type: str, required: true}
  moment: {description: "The moment, such as C(before_switch).", type: str, required: true}
  run: {description: The run that holds the app's lock., type: str, default: ""}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Deploy | Run what comes before the switch
  shipshape.droplet.app_hook:
    app: "{{ (app_list | shipshape.droplet.app_specs)['shop'] }}"
    release: 20260214T050000Z-1a2b3c4
    moment: before_switch
"""

RETURN = r"""
release: {description: Id of the release., type: str, returned: success}
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_hook, app_lock, app_trail
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, locked


def work(module: AnsibleModule) -> dict[str, Any]:
    app, name, moment = (module.params[key] for key in ("app", "release", "moment"))
    if module.check_mode:
        return {"changed": True, "release": name}
    store = Store(app["name"], app["directory"])
    step = app_trail.step(app["name"], name, moment, app_lock.who(store))
    with step, locked(app["name"], store.directory, "lock") as lock:
        app_lock.hold(store, module.params["run"])
        release = store.find(name)
        problem = app_hook.run(app, release, moment, lock)
        if problem:
            said = f"nothing leads to release {name} ({release.record.get('version')}); {problem}"
            raise AppError(app["name"], moment, said)
    return {"changed": True, "release": name}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="dict", required=True, options=app_options()),
            release=dict(type="str", required=True),
            moment=dict(type="str", required=True),
            run=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    execute(module, work, "hook")


if __name__ == "__main__":
    main()
