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

from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import owed_handlers, systemd_units


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            units=dict(required=True, **systemd_units.OPTIONS),
            daemon_reload=dict(type="bool", default=False),
            handler=dict(type="list", elements="str", default=[]),
        ),
        supports_check_mode=True,
    )
    actions = systemd_units.converge(module, module.params["units"], module.params["daemon_reload"])
    if not module.check_mode:
        for name in module.params["handler"]:
            owed_handlers.settle(name)
    result: Dict[str, Any] = dict(changed=bool(actions), actions=actions)
    if module._diff and actions:
        result["diff"] = systemd_units.diff(actions)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
