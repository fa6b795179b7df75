"""Bring systemd units to their declared state."""

from __future__ import annotations

from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule

PROPERTIES = ("Id", "LoadState", "ActiveState", "UnitFileState", "NeedDaemonReload")
ENABLED = ("enabled", "enabled-runtime", "static", "indirect", "generated", "alias")


def parse_show(text: str) -> List[Dict[str, str]]:
    """One dict of properties for each block of ``systemctl show``."""
    blocks = []
    for block in text.strip("\n").split("\n\n"):
        blocks.append(dict(line.split("=", 1) for line in block.splitlines() if "=" in line))
    return blocks


def plan(unit: Dict[str, Any], now: Dict[str, str]) -> List[str]:
    """The systemctl verbs that take the unit from what it is to what it shall be."""
    verbs = []
    masked = now.get("UnitFileState", "").startswith("masked") or now.get("LoadState") == "masked"
    if unit["masked"] is False and masked:
        verbs.append("unmask")
    if unit["enabled"] is not None:
        enabled = now.get("UnitFileState") in ENABLED
        if unit["enabled"] and not enabled:
            verbs.append("enable")
        elif not unit["enabled"] and now.get("UnitFileState") in ("enabled", "enabled-runtime"):
            verbs.append("disable")
    active = now.get("ActiveState") in ("active", "reloading", "activating")
    state = unit["state"]
    if state == "started" and not active:
        verbs.append("start")
    elif state == "stopped" and (active or now.get("ActiveState") == "deactivating"):
        verbs.append("stop")
    elif state == "restarted":
        verbs.append("restart")
    elif state == "reloaded":
        verbs.append("reload" if active else "start")
    if unit["masked"] and not masked:
        verbs.append("mask")
    return verbs


OPTIONS: Dict[str, Any] = dict(
    type="list",
    elements="dict",
    options=dict(
        name=dict(type="str", required=True),
        state=dict(type="str", choices=["started", "stopped", "restarted", "reloaded"]),
        enabled=dict(type="bool"),
        masked=dict(type="bool"),
        optional=dict(type="bool", default=False),
    ),
)


def show(module: AnsibleModule, names: List[str]) -> List[Dict[str, str]]:
    if not module.get_bin_path("systemctl"):
        module.fail_json(msg="This host has no systemctl: Shipshape needs a droplet that runs systemd.")
    command = ["systemctl", "show", "--property", ",".join(PROPERTIES)] + names
    code, out, err = module.run_command(command)
    if code != 0:
        module.fail_json(msg=f"systemctl show failed (exit {code}): {err.strip()}")
    return parse_show(out)


def act(module: AnsibleModule, verb: str, name: str) -> None:
    code, _out, err = module.run_command(["systemctl", verb, name])
    if code == 0:
        return
    _code, journal, _err = module.run_command(["journalctl", "--unit", name, "--lines", "20", "--no-pager", "--quiet"])
    module.fail_json(
        msg="Could not {} {}: {}\nThe last lines of its journal:\n{}".format(
            verb, name, err.strip(), journal.strip() or "(none)"
        )
    )


def once(actions: List[List[str]]) -> List[List[str]]:
    """Of start, reload and restart of one unit the last alone, at the place of the first: it has what the others bring.

    A unit that has not run yet and is wanted with new files would otherwise be started, and at once again.
    """
    begin = ("start", "reload", "restart")
    wanted: Dict[str, str] = {}
    for verb, name in actions:
        if verb in begin:
            wanted[name] = max(verb, wanted.get(name, ""), key=lambda one: begin.index(one) if one else -1)
    found = [[wanted[name] if verb in begin else verb, name] for verb, name in actions]
    return [action for number, action in enumerate(found) if action not in found[:number]]


def converge(module: AnsibleModule, units: List[Dict[str, Any]], daemon_reload: bool = False) -> List[str]:
    """What was (or in check mode would be) done, as 'verb unit'."""
    if not units:
        return []
    states = show(module, [unit["name"] for unit in units])
    actions: List[List[str]] = []
    for unit, now in zip(units, states):
        if now.get("LoadState") == "not-found" and unit["optional"]:
            continue
        actions += [[verb, unit["name"]] for verb in plan(unit, now) if [verb, unit["name"]] not in actions]
    actions = once(actions)
    # What is masked can be neither started nor reloaded.
    actions.sort(key=lambda action: action[0] != "unmask")
    if not module.check_mode:
        if daemon_reload or any(now.get("NeedDaemonReload") == "yes" for now in states):
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        for verb, name in actions:
            act(module, verb, name)
    return [" ".join(action) for action in actions]


def end(module: AnsibleModule, names: List[str]) -> List[str]:
    """Stop those that run. Not after a reload: systemd then forgets how a unit ends whose file is gone."""
    states = show(module, names) if names else []
    running = [name for name, now in zip(names, states) if now.get("ActiveState") in ("active", "reloading")]
    for name in [] if module.check_mode else running:
        act(module, "stop", name)
    return [f"stop {name}" for name in running]


def diff(actions: List[str]) -> Dict[str, str]:
    return {"before": "", "after": "".join(action + "\n" for action in actions), "after_header": "systemctl"}
