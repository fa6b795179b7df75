#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_migrate
short_description: Run the migration of a new release while the old one serves
version_added: 0.1.0
description:
  - Runs the release's C(migrate) script to its end as a transient systemd unit, with the user, environment, folder and
    sandbox of the service.
  - When it fails, the new release is removed and the old one goes on serving.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release: {description: Id of the new release., type: str, required: true}
  timeout: {description: Seconds after which a migration is stopped., type: int, default: 900}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Deploy | Migrate
  shipshape.droplet.app_migrate:
    app: "{{ (app_list | shipshape.droplet.app_specs)['shop'] }}"
    release: 20260214T050000Z-1a2b3c4
"""

RETURN = r"""
output: {description: The last lines the migration said, without anything secret., type: str, returned: success}
"""

import os
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_env, app_lock, app_service, app_trail
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, last_lines, locked


def work(module: AnsibleModule) -> dict[str, Any]:
    app, name = module.params["app"], module.params["release"]
    if module.check_mode:
        return {"changed": True, "output": ""}
    store = Store(app["name"], app["directory"])
    step = app_trail.step(app["name"], name, "migrate", app_lock.who(store))
    with step, locked(app["name"], store.directory, "lock") as lock:
        release = store.release(name)
        if release is None:
            raise AppError(app["name"], "migrate", f"release {name} is gone: another run removed it; run again")
        with open(os.path.join(release.path, "env"), encoding="utf-8") as stream:
            environment = app_env.from_file(stream.read())
        code, output = app_service.run_once(
            unit=app["name"] + "-migrate.service",
            account=app["user"],
            directory=os.path.join(release.path, "src"),
            environment_file=os.path.join(release.path, "env"),
            state="shipshape/" + app["name"],
            script=os.path.join(release.path, "migrate"),
            patience=module.params["timeout"],
            lock=lock,
        )
        output = app_env.scrub(output, environment)
        if code != 0:
            if release.id != store.current:
                release.remove()
            serving = f"release {store.current} goes on serving" if store.current else "nothing was started"
            raise AppError(
                app["name"],
                "migrate",
                f"`{app['migrate']}` failed (exit {code}); {serving}. Its last lines:\n{last_lines(output)}",
            )
        release.note(migrated=now())
    return {"changed": True, "output": "\n".join(output.splitlines()[-20:])}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="dict", required=True, options=app_options()),
            release=dict(type="str", required=True),
            timeout=dict(type="int", default=900),
        ),
        supports_check_mode=True,
    )
    execute(module, work)


if __name__ == "__main__":
    main()
