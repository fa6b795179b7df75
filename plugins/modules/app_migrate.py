#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_migrate
short_description: Run the migration of a new release while the old one serves
version_added: 0.1.0
description:
  - Runs the release's C(migrate) script to its end as a transient systemd unit, with the user, environment, folder and
    sandbox of the service, and the hooks before and after it. Then, once in the life of the app, its C(seed).
  - When it fails, the new release is removed and the old one goes on serving.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release: {description: Id of the new release., type: str, required: true}
  timeout: {description: Seconds after which a migration is stopped., type: int, default: 900}
  undo:
    description: Take back instead what SQL migrations have done that the release does not know.
    type: bool
    default: false
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
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_hook,
    app_lock,
    app_stack,
    app_trail,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Release, Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import (
    AppError,
    last_lines,
    locked,
    write_record,
)

#: By app, that its seed was sown. It is kept with what a droplet is rebuilt from, as the data is.
SEEDED = "/etc/shipshape/seeded"


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
        if module.params["undo"]:
            output = undo(app, release, module.params["timeout"], lock)
        else:
            output = migrate(app, store, release, module.params["timeout"], lock)
    return {"changed": True, "output": "\n".join(output.splitlines()[-20:])}


def undo(app: dict[str, Any], release: Release, patience: int, lock: int) -> str:
    """Take back the SQL migrations that the release, which serves again, does not know."""
    if not (os.path.exists(os.path.join(release.path, "unmigrate")) or app_container.has_sql(release.path)):
        raise AppError(app["name"], "undo", f"release {release.id} has no SQL migrations: nothing was taken back")
    code, output = app_hook.run_script(app, release, "unmigrate", patience, lock)
    if code != 0:
        raise AppError(app["name"], "undo", f"release {release.id} is live, but {last_lines(output).strip()}")
    return str(output)


def migrate(app: dict[str, Any], store: Store, release: Release, patience: int, lock: int) -> str:
    """All that is done to the app's data before the release starts; returns what the migration said."""
    said = ""

    def give_up(step: str, why: str) -> None:
        if release.id != store.current:
            release.remove()
        serving = f"release {store.current} goes on serving" if store.current else "nothing was started"
        raise AppError(app["name"], step, f"{serving}; {why}")

    def script(name: str) -> str:
        code, output = app_hook.run_script(app, release, name, patience, lock)
        if code != 0:
            what = f"`{app[name]}`" if app[name] else f"the SQL of {app['migrate_sql']}"
            give_up(name, f"{what} failed (exit {code}). Its last lines:\n{last_lines(output)}")
        return str(output)

    def hook(moment: str) -> None:
        problem = app_hook.run(app, release, moment, lock)
        if problem:
            give_up(moment, problem)

    if app["type"] == "compose":
        # What is migrated may be in a service of the same file, which a first release has not started yet.
        problem, log = app_stack.ensure(app, store, release, app["health_timeout"] or 60)
        if problem:
            give_up("migrate", f"{problem}. Its log:\n{log}" if log else problem)

    hook("before_migrate")
    if app["migrate"] or app["migrate_sql"]:
        said = script("migrate")
        release.note(migrated=now())
    hook("after_migrate")
    seeded = os.path.join(SEEDED, app["name"] + ".json")
    if app["seed"] and not os.path.exists(seeded):
        script("seed")
        os.makedirs(SEEDED, mode=0o700, exist_ok=True)
        write_record(seeded, {"release": release.id, "at": now()})
    return said


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="dict", required=True, options=app_options()),
            release=dict(type="str", required=True),
            timeout=dict(type="int", default=900),
            undo=dict(type="bool", default=False),
        ),
        supports_check_mode=True,
    )
    execute(module, work, "migrate")


if __name__ == "__main__":
    main()
