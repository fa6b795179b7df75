#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_activate
short_description: Make a release of an app the live one, or leave the old one live
version_added: 0.1.0
description:
  - Switches to the release, restarts the service and waits until it is healthy. When it is not, the release that was
    live before is switched back and started again, and the task fails with the last lines of the app's log.
  - Also the way back to an earlier release. Old releases beyond C(keep_releases) are removed at the end.
extends_documentation_fragment: [shipshape.droplet.app]
options:
  release:
    description: Id of the release, V(previous) for the one live before, or V(current) to start the live one again.
    type: str
    required: true
  rollback:
    description: Note that the release that is live now was given up, so that it is not deployed again by itself.
    type: bool
    default: false
  timeout: {description: Seconds a release may take until it is healthy., type: int, default: 60}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Rollback | Go back to the release before
  shipshape.droplet.app_activate:
    app: "{{ (app_list | shipshape.droplet.app_specs)['shop'] }}"
    release: previous
    rollback: true
"""

RETURN = r"""
release: {description: Id of the release that is live now., type: str, returned: success}
before: {description: Id of the release that was live., type: str, returned: success}
summary: {description: What happened in one sentence., type: str, returned: success}
removed: {description: Ids of the releases that were removed., type: list, elements: str, returned: success}
"""

import os
import time
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_env, app_service
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Release, Store, now
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError, locked


def find(app: dict[str, Any], store: Store, wanted: str) -> Release:
    """The release that is meant, or a message with those there are."""
    release = (
        store.previous() if wanted == "previous" else store.release(store.current if wanted == "current" else wanted)
    )
    if release is not None:
        return release
    kept = ", ".join(f"{entry.id} ({store.state(entry)})" for entry in store.releases()) or "none"
    if wanted == "previous":
        message = f"there is no earlier release to go back to; releases here: {kept}"
    else:
        message = f"there is no release {wanted}; releases here: {kept}"
    raise AppError(app["name"], "release", message)


def environment_of(release: Release) -> dict[str, str]:
    try:
        with open(os.path.join(release.path, "env"), encoding="utf-8") as stream:
            environment: dict[str, str] = app_env.from_file(stream.read())
    except FileNotFoundError:
        return {}
    return environment


def gate_for(module: AnsibleModule, store: Store, release: Release) -> app_service.Gate:
    """Where this very release answers: an older one may have listened elsewhere."""
    app = module.params["app"]
    health = {"address": app["address"], "port": app["port"], "path": app["health"]}
    wanted = (app["settings_fingerprint"], app["environment_fingerprint"])
    if wanted != (release.record.get("settings"), release.record.get("environment")):
        health.update(release.record.get("health") or {})
    return app_service.Gate(store.unit, health["address"], health["port"], health["path"], module.params["timeout"])


def return_to(module: AnsibleModule, store: Store, back: str, failed: Release) -> str:
    """Serve as before, and say how that went."""
    store.switch(back)
    if not failed.activated:
        failed.remove()
    earlier = store.release(back)
    if earlier is None:
        app_service.systemctl("disable", "--now", "--quiet", store.unit)
        return "there is no earlier release, so the app is stopped"
    problem = gate_for(module, store, earlier).start()
    if problem:
        return f"release {back} was switched back but is not healthy either: {problem}"
    store.confirm(back)
    return f"release {back} was switched back and is serving"


def start(module: AnsibleModule, store: Store, release: Release, back: str) -> None:
    """Switch a service over to the release and keep it there only if it is healthy."""
    app = module.params["app"]
    began = time.time()
    store.switch(release.id)
    gate = gate_for(module, store, release)
    problem = gate.start()
    if not problem:
        return
    log = app_env.scrub(app_service.journal(store.unit, began, gate.path), environment_of(release))
    problem = app_env.scrub(problem, environment_of(release))
    ending = (
        return_to(module, store, back, release)
        if back != release.id
        else "it was live before, so there is nothing to go back to"
    )
    raise AppError(
        app["name"],
        "health",
        f"release {release.id} ({release.record.get('version')}): {problem}; {ending}. Its log:\n{log}",
    )


def activate(module: AnsibleModule, store: Store, release: Release) -> dict[str, Any]:
    app = module.params["app"]
    before = store.current
    # After an interrupted switch `current` is not known to be good; what was healthy last is the way back.
    back = store.healthy
    if app["type"] == "static":
        store.switch(release.id)
    else:
        start(module, store, release, back)
    given_up = store.release(before) if module.params["rollback"] and before != release.id else None
    if given_up is not None:
        given_up.note(rolled_back=now())
    store.confirm(release.id)
    removed = store.prune(app["keep_releases"])
    return dict(report(app, release, before, given_up is not None), changed=True, removed=removed)


def report(app: dict[str, Any], release: Release, before: str, rolled_back: bool) -> dict[str, Any]:
    """What the operator wants to read."""
    said = f"{app['name']}: release {release.id} ({release.record.get('version')}) is live"
    if rolled_back:
        said += f"; {before} is given up and not deployed again by itself"
        if app["migrate"] and before > release.id:
            said += ". The database stays as that release has migrated it"
    return {"release": release.id, "before": before, "summary": said}


def work(module: AnsibleModule) -> dict[str, Any]:
    app, wanted = module.params["app"], module.params["release"]
    store = Store(app["name"], app["directory"])
    rollback = module.params["rollback"]
    if module.check_mode and not rollback:
        # What this very run would have built is not there yet.
        return {"changed": True, "release": wanted, "before": store.current, "summary": "", "removed": []}
    if module.check_mode:
        release = find(app, store, wanted)
        other = release.id != store.current
        said = report(app, release, store.current, other)
        return dict(said, changed=other, removed=[], summary="Would be so: " + said["summary"])
    with locked(app["name"], store.directory, "lock"):
        release = find(app, store, wanted)
        if rollback and release.id == store.current == store.healthy:
            return dict(report(app, release, release.id, False), changed=False, removed=[])
        return activate(module, store, release)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            app=dict(type="dict", required=True, options=app_options()),
            release=dict(type="str", required=True),
            rollback=dict(type="bool", default=False),
            timeout=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    execute(module, work)


if __name__ == "__main__":
    main()
