#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: units
short_description: Bring several systemd units to their declared state in one trip
version_added: 0.1.0
description:
  - Reads the state of all units by one C(systemctl show), then enables, masks, starts, stops, restarts or reloads
    only what differs. Units whose files changed on disk are reloaded (C(daemon-reload)) first.
  - A unit that does not come up fails the task with the last lines of its journal.
  - As a handler it settles the notification that M(shipshape.droplet.files) noted on the host.
options:
  units:
    description: The units, in order.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Name with its suffix., type: str, required: true}
      state:
        description:
          - What it shall be doing. V(restarted) and V(reloaded) always act and always report a change.
          - A unit that is not running is started by V(reloaded). Left out, only O(units[].enabled) is looked at.
        type: str
        choices: [started, stopped, restarted, reloaded]
      enabled: {description: Whether it starts at boot. Left out, it stays as it is., type: bool}
      masked: {description: Whether it can be started at all. Left out, it stays as it is., type: bool}
      optional: {description: Pass over a unit that is not on this host., type: bool, default: false}
  daemon_reload:
    description: Have systemd read all unit files anew first, also when it says that it need not.
    type: bool
    default: false
  handler:
    description: Set by the action plugin, the names under which this task was notified.
    type: list
    elements: str
    default: []
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Service | Start
  shipshape.droplet.units:
    units:
      - {name: nginx.service, enabled: true, state: started}
      - {name: apt-daily.timer, enabled: true, state: started}
"""

RETURN = r"""
actions:
  description: What was (or in check mode would be) done, such as C(start nginx.service).
  type: list
  elements: str
  returned: always
"""

from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import owed_handlers

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


def show(module: AnsibleModule, names: List[str]) -> List[Dict[str, str]]:
    if not module.get_bin_path("systemctl"):
        module.fail_json(msg="This host has no systemctl: Shipshape needs a droplet that runs systemd.")
    command = ["systemctl", "show", "--property", ",".join(PROPERTIES)] + names
    code, out, err = module.run_command(command)
    if code != 0:
        module.fail_json(msg="systemctl show failed (exit %d): %s" % (code, err.strip()))
    return parse_show(out)


def act(module: AnsibleModule, verb: str, name: str) -> None:
    code, _out, err = module.run_command(["systemctl", verb, name])
    if code == 0:
        return
    _code, journal, _err = module.run_command(["journalctl", "--unit", name, "--lines", "20", "--no-pager", "--quiet"])
    module.fail_json(
        msg="Could not %s %s: %s\nThe last lines of its journal:\n%s"
        % (verb, name, err.strip(), journal.strip() or "(none)")
    )


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            units=dict(
                type="list",
                elements="dict",
                required=True,
                options=dict(
                    name=dict(type="str", required=True),
                    state=dict(type="str", choices=["started", "stopped", "restarted", "reloaded"]),
                    enabled=dict(type="bool"),
                    masked=dict(type="bool"),
                    optional=dict(type="bool", default=False),
                ),
            ),
            daemon_reload=dict(type="bool", default=False),
            handler=dict(type="list", elements="str", default=[]),
        ),
        supports_check_mode=True,
    )
    units: List[Dict[str, Any]] = module.params["units"]
    states = show(module, [unit["name"] for unit in units]) if units else []

    reload_needed = module.params["daemon_reload"] or any(now.get("NeedDaemonReload") == "yes" for now in states)
    actions: List[List[str]] = []
    for unit, now in zip(units, states):
        missing = now.get("LoadState") == "not-found"
        if missing and unit["optional"]:
            continue
        actions += [[verb, unit["name"]] for verb in plan(unit, now)]

    if not module.check_mode:
        if reload_needed:
            module.run_command(["systemctl", "daemon-reload"], check_rc=True)
        for verb, name in actions:
            act(module, verb, name)
        for name in module.params["handler"]:
            owed_handlers.settle(name)
    lines = [" ".join(action) for action in actions]
    result: Dict[str, Any] = dict(changed=bool(actions), actions=lines)
    if module._diff and lines:
        result["diff"] = {"before": "", "after": "".join(line + "\n" for line in lines), "after_header": "systemctl"}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
