#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_release
short_description: Prepare the ground for apps and say which of them need a new release
version_added: 0.1.0
description:
  - For all apps of a host in one trip. Ensures each app's system user and directories, removes what an interrupted
    deploy has left, asks the git servers which commit each version stands for, and the
    registries which image, and compares with the live release.
  - Starts and stops nothing. M(shipshape.droplet.app_build), M(shipshape.droplet.app_start) and
    M(shipshape.droplet.app_finish) do what it says.
  - Takes the lock of each app that has something to do, and refuses an app that another run is at work on.
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
  keep:
    description: >-
      Take what is live for what each version stands for, and ask nobody; of an app without a release they are asked.
    type: bool
    default: false
  to:
    description: >-
      Plan the way back of the one app to this release instead, V(previous) for the one that was live before.
    type: str
    default: ""
  rewritten:
    description: Units that were written just now, or would be; in check mode their files do not say so.
    type: list
    elements: str
    default: []
  holder:
    description: This run, as the filter C(shipshape.droplet.app_holder) describes it.
    type: dict
    default: {}
  break_lock: {description: Take the lock away from another run., type: bool, default: false}
  webhook: {description: The https URL that hears of the start of a deploy., type: str, default: ""}
  registries:
    description: The logins for the registries of images, sealed by the filter C(shipshape.droplet.app_registries).
    type: str
    default: ""
  deploy_keys:
    description: The keys for repositories over ssh, sealed by the filter C(shipshape.droplet.app_deploy_keys).
    type: str
    default: ""
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
  description: >-
    The apps whose release is there but was not confirmed, or whose service is not up or has to start anew, with the
    reasons.
  type: list
  elements: dict
  returned: success
apps:
  description: The same for all apps, by name.
  type: dict
  returned: success
summary:
  description: For a way back, what it comes to.
  type: list
  elements: str
  returned: success
changes:
  description: What was done to users, directories and leftovers.
  type: list
  elements: str
  returned: success
"""

import socket
from typing import Any, Iterable, Sequence

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    app_container,
    app_deploy_key,
    app_lock,
    app_process,
    app_service,
    app_stack,
    app_trail,
)
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import accesses, app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_ground import check_name, prepare
from ansible_collections.shipshape.droplet.plugins.module_utils.app_source import remote_refs, wanted_commit
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import COLOURS, Release, Store, other
from ansible_collections.shipshape.droplet.plugins.module_utils.app_system import AppError
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import IMAGE_TYPES, PROCESS_TYPES


def differences(app: dict[str, Any], live: Release, commit: str) -> list[str]:
    """Why the live release is not what is wanted."""
    reasons = []
    if commit != live.commit:
        kind = "image" if app["type"] == "container" else "commit"
        reasons.append("{} {} instead of {}".format(kind, commit[:7] or "not known yet", live.commit[:7]))
    if app["settings_fingerprint"] != live.record.get("settings"):
        reasons.append("its settings changed" if app["type"] in IMAGE_TYPES else "its command or folder changed")
    if app["environment_fingerprint"] != live.record.get("environment"):
        reasons.append("its environment changed")
    return reasons


def service_problems(
    app: dict[str, Any], store: Store, states: dict[str, dict[str, str]], rewritten: list[str]
) -> list[str]:
    """Why a service has to be started although its release is the right one."""
    problems = []
    live = store.release(store.current)
    others = app_process.others(app, store.colour, live) if live and store.colour else []
    state = states.get(store.live_unit)
    if not store.activation.get("colour") and store.single:
        problems.append(f"it runs as {store.single_unit} of old")
    elif not app_service.is_up(state):
        problems.append("its service is not running")
    elif state and state.get("UnitFileState") != "enabled":
        problems.append("its service is not enabled")
    else:
        problems += process_problems(store, others, states, rewritten)
    if app["type"] == "compose" and not problems:
        problems += app_stack.problems(app, store, live)
    idle = app_process.others(app, other(store.colour)) if store.colour else []
    for unit in store.idle_units() + idle:
        found = states.get(unit, {})
        if found.get("ActiveState", "inactive") != "inactive" or found.get("UnitFileState") == "enabled":
            problems.append(f"{unit} is left of a switch that was cut off")
    return problems


def process_problems(
    store: Store, others: list[str], states: dict[str, dict[str, str]], rewritten: list[str]
) -> list[str]:
    """The same for what runs beside the process that answers requests, and for a unit that is another one now."""
    down = [unit for unit in others if not app_service.is_up(states.get(unit))]
    if down:
        return [f"{', '.join(down)} is not running"]
    digest = store.unit_digest(store.colour, others)
    if store.activation.get("unit") != digest or {store.live_unit, *others} & set(rewritten):
        return ["its unit changed since it started"]
    return []


def rolled_back_twin(app: dict[str, Any], store: Store, commit: str) -> Release | None:
    """The release with just this content that somebody has rolled back."""
    for release in store.releases():
        if release.rolled_back and not differences(app, release, commit):
            return release
    return None


def decide(
    app: dict[str, Any],
    commit: str,
    states: dict[str, dict[str, str]],
    redeploy: bool,
    rewritten: Sequence[str] = (),
    lost: bool = False,
) -> tuple[str, dict[str, Any]]:
    """(deploy, activate or none; what the next steps need to know)."""
    store = Store(app["name"], app["directory"])
    live = store.release(store.current)
    facts = facts_of(app, store, commit)
    reasons = differences(app, live, commit) if live else ["it has no release yet"]
    if lost:
        reasons.append("its image is not on this host any more")
    if reasons:
        twin = rolled_back_twin(app, store, commit) if live else None
        if twin is None or redeploy:
            return "deploy", dict(facts, release=store.new_id(commit or "unknown"), reasons=reasons)
        facts["held"] = (
            f"{app['name']}: {app['version']} ({commit[:7]}) was rolled back on {twin.rolled_back} and stays so; "
            f"push a fix, or deploy it again with -e app={app['name']} -e version={app['version']}"
        )
    problems = service_problems(app, store, states, list(rewritten)) if app["type"] in PROCESS_TYPES else []
    if live and store.activation.get("release") != live.id:
        problems.append(f"release {live.id} was not confirmed")
    return ("activate" if problems else "none"), dict(facts, reasons=problems)


def live_commits(stores: Iterable[Store]) -> dict[str, str]:
    """The commit or image of what is live, by app."""
    live = ((store.app, store.release(store.current)) for store in stores)
    return {name: release.commit for name, release in live if release}


def units_of(app: dict[str, Any], store: Store) -> list[str]:
    """Every unit that an app may run under."""
    beside = [unit for colour in COLOURS for unit in app_process.others(app, colour)]
    return [*map(store.unit, COLOURS), store.single_unit, *beside]


def facts_of(app: dict[str, Any], store: Store, commit: str) -> dict[str, Any]:
    return {
        "name": app["name"],
        "release": store.current,
        "commit": commit,
        "version": app["version"],
        "reasons": [],
        "colour": store.colour,
        "switched": bool(app["second_port"]),
        "given_up": "",
        "summary": "",
    }


def moments(app: dict[str, Any], store: Store, name: str) -> list[str]:
    """Those at which a release has something run: its own, of one that is there; the app's, of one to be built."""
    release = store.release(name)
    return sorted(app["hooks"] if release is None else release.record.get("hooks") or {})


def way_back(app: dict[str, Any], to: str) -> tuple[str, dict[str, Any]]:
    """The same for going back to an earlier release."""
    store = Store(app["name"], app["directory"])
    release = store.find(to)
    kind = release.record.get("type") or app["type"]
    if kind != app["type"]:
        message = f"release {release.id} is of type {kind}, and the app is of type {app['type']} now; deploy instead"
        raise AppError(app["name"], "release", message)
    facts = dict(facts_of(app, store, release.commit), release=release.id, version=release.record.get("version") or "")
    said = f"{app['name']}: release {release.id} ({facts['version']}) is live"
    if release.id == store.current == store.healthy:
        return "none", dict(facts, summary=said)
    if release.id != store.current:
        newer = release.id > store.current
        said += f"; {store.current} is " + ("kept" if newer else "given up and not deployed again by itself")
        facts["given_up"] = store.current
        migrations = store.migrations_after(release)
        if migrations:
            said += f". The database stays as {', '.join(migrations)} migrated it"
            said += "; -e migrations=undo takes that back" if app["migrate_sql"] else ""
    return "activate", dict(facts, summary=said, reasons=[f"way back from {store.current}"])


def work(module: AnsibleModule) -> dict[str, Any]:
    apps: list[dict[str, Any]] = module.params["apps"]
    to, holder, check_mode = module.params["to"], module.params["holder"], module.check_mode
    logins = app_container.logins(module, module.params["registries"])
    reached = accesses(module, apps)
    for app in apps:
        check_name(app)

    def lock(store: Store) -> None:
        said = app_lock.acquire(store, holder, module.params["break_lock"]) if holder["run"] else ""
        if said:
            module.warn(said)

    changes: list[str] = []
    plan: dict[str, dict[str, Any]] = {}
    stores = {app["name"]: Store(app["name"], app["directory"]) for app in apps}
    try:
        changes = [change for app in apps for change in prepare(app, check_mode, lock)]
        app_deploy_key.clear()
        kept = live_commits(stores.values()) if module.params["keep"] else {}
        asked = [app for app in apps if not to and app["name"] not in kept]
        refs = remote_refs(asked, reached)
        digests = {**app_container.wanted_digests(asked, logins, check_mode), **kept}
        lost = app_container.lost(apps)
        states = app_service.show(
            [unit for app in apps if app["type"] in PROCESS_TYPES for unit in units_of(app, stores[app["name"]])]
        )
        for app in apps:
            if to:
                action, facts = way_back(app, to)
            else:
                commit = digests.get(app["name"])
                if commit is None:
                    commit = wanted_commit(app, refs.get(app["name"]), check_mode, reached[app["name"]])
                action, facts = decide(
                    app,
                    commit,
                    states,
                    module.params["redeploy"],
                    module.params["rewritten"],
                    app["name"] in lost,
                )
            plan[app["name"]] = dict(facts, action=action, moments=moments(app, stores[app["name"]], facts["release"]))
            if action == "deploy" and not check_mode:
                stores[app["name"]].plan(facts["release"])
            if facts.get("held"):
                module.warn(facts["held"])
    finally:
        if not check_mode:
            # Where nothing is to be done, or nothing can be, nobody has to wait for it.
            whole = len(plan) == len(apps)
            for name, store in stores.items():
                if not whole or plan[name]["action"] == "none":
                    app_lock.release(store, holder["run"])
    result: dict[str, Any] = dict(
        changed=bool(changes),
        changes=changes,
        apps=plan,
        deploy=[facts for facts in plan.values() if facts["action"] == "deploy"],
        activate=[facts for facts in plan.values() if facts["action"] == "activate"],
        summary=[facts["summary"] for facts in plan.values() if facts["summary"]],
    )
    if not check_mode:
        begin(module, result["deploy"] + result["activate"])
    if module._diff and changes:
        result["diff"] = {"before": "", "after": "\n".join(changes) + "\n"}
    return result


def begin(module: AnsibleModule, rows: list[dict[str, Any]]) -> None:
    """Say that it begins, and why."""
    who = module.params["holder"]["who"]
    for row in rows:
        app_trail.note(row["name"], row["release"], "plan", row["action"], who, why=", ".join(row["reasons"]))
    if rows:
        names = ", ".join("{name} {release} ({version})".format(**row) for row in rows)
        said = f"{socket.gethostname()}: Deploy of {names} begins, by {who or 'somebody'}"
        problem = app_trail.tell(module.params["webhook"], said)
        if problem:
            module.warn(problem)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            apps=dict(type="list", elements="dict", required=True, options=app_options()),
            redeploy=dict(type="bool", default=False),
            keep=dict(type="bool", default=False),
            to=dict(type="str", default=""),
            rewritten=dict(type="list", elements="str", default=[]),
            holder=dict(type="dict", default={}, options=app_lock.holder_options()),
            break_lock=dict(type="bool", default=False),
            webhook=dict(type="str", default="", no_log=True),
            registries=dict(type="str", default="", no_log=True),
            deploy_keys=dict(type="str", default="", no_log=True),
        ),
        supports_check_mode=True,
    )
    execute(module, work, "plan")


if __name__ == "__main__":
    main()
