#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_upgrade
short_description: Move the local PostgreSQL cluster to another major version, or back
version_added: 0.1.0
description:
  - Copies the cluster C(main) of the version that holds the data into one of O(version), by C(pg_upgrade), and lets
    that one take its port. The old one is kept, stopped and disabled.
  - Until the new one has been compared with the old and opened, any failure ends with the old one serving, unchanged. A
    note on the host says what has been reached, so that a run that was killed anywhere is finished, or put back and
    made anew, by the next.
  - The packages of both versions have to be installed, but for O(state=checked).
  - In check mode it asks all that can be asked without changing anything.
extends_documentation_fragment: [shipshape.droplet.file_set]
options:
  version:
    description: Major version that the data is to be in.
    type: str
    required: true
  state:
    description:
      - V(checked) looks for what stands in the way, and puts back what a killed run has left; V(prepared) also makes
        the new cluster, empty and stopped, with O(files), and asks C(pg_upgrade --check); V(upgraded) does all of it.
      - V(returned) goes back to the old cluster as it was when the new one took its place.
    type: str
    choices: [checked, prepared, upgraded, returned]
    default: upgraded
  link:
    description:
      - Use the old cluster's files for the new one in place of copies. It takes seconds at any size, and there is no
        way back.
    type: bool
    default: false
  backup_hours:
    description: Hours that the last backup may be old; V(0) asks for none.
    type: float
    default: 26
  backups:
    description: Files that each success of a backup writes anew.
    type: list
    elements: path
    default: []
  accept_loss:
    description: With O(state=returned), go back although something was written since the switch, which is lost by it.
    type: bool
    default: false
  pooler_port:
    description: Port of PgBouncer on this host, which then lets its clients wait meanwhile; V(0) where there is none.
    type: int
    default: 0
  replication:
    description:
      - As of M(shipshape.droplet.postgresql_cluster). A host that has replicas, or is one, is refused.
    type: dict
    default: {}
  timeout:
    description: Seconds to wait for a server after its start.
    type: int
    default: 60
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Upgrade | See whether it can be done
  shipshape.droplet.postgresql_upgrade:
    version: "16"
    state: checked

- name: Upgrade | Move the data
  shipshape.droplet.postgresql_upgrade:
    version: "16"
    files:
      - {path: /etc/postgresql/16/main/conf.d/shop.conf, template: shop.conf.j2}
"""

RETURN = r"""
due: {description: Whether the data is in another version yet., type: bool, returned: success}
old: {description: Major version that the data was or is in before., type: str, returned: success}
said: {description: What was found or done, for a person., type: list, elements: str, returned: success}
"""

import signal
from typing import Any, Dict

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import file_set, secret_file, umask
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_upgrade_plan as plan
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import ServerError
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_upgrade import Upgrade
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_upgrade_host import Failed, alone

#: What may go wrong at any step, being told to stop among it.
TROUBLE = (Failed, plan.Refused, ServerError, secret_file.UnsafeSecret, OSError)


def stopped(*_: Any) -> None:
    raise Failed("it was told to stop")


def configure(module: AnsibleModule) -> None:
    # The entries look at what is there, so they are made once the cluster is.
    file_set.converge(module, file_set.declared(module))


def move(module: AnsibleModule, upgrade: Upgrade) -> Dict[str, Any]:
    state, check_mode = module.params["state"], module.check_mode
    step = upgrade.decide()
    old, new = upgrade.old_version, upgrade.wanted
    if step == plan.NOTHING:
        said = [f"the data is in version {new} already"]
        if upgrade.note.get("phase") == plan.DONE and upgrade.note["to"] == new:
            said = plan.report(upgrade.note)
        return dict(changed=False, due=False, old=old, said=said)
    if step == plan.FINISH:
        if state == "checked" or check_mode:
            said = [f"an upgrade from {old} to {new} is past its switch and was cut off; a run finishes it"]
            return dict(changed=check_mode, due=True, old=old, said=said)
        upgrade.open()
        upgrade.finish()
        return dict(changed=True, due=False, old=old, said=plan.report(upgrade.note))
    said = []
    if step == plan.PUT_BACK:
        said.append(f"an upgrade from {old} to {new} was cut off before its switch; the old cluster serves again")
        if check_mode:
            said = [
                f"an upgrade from {old} to {new} was cut off before its switch; a run puts the old cluster back first"
            ]
            return dict(changed=True, due=True, old=old, said=said)
        upgrade.put_back()
    said += upgrade.check()
    found = upgrade.found
    size = f"{found['bytes'] // plan.MB} MB of data, {found['free'] // plan.MB} MB free"
    said.append(f"PostgreSQL {found['version']} can be moved to {new} ({found['mode']}; {size})")
    if state == "checked" or check_mode:
        return dict(changed=check_mode or step == plan.PUT_BACK, due=True, old=old, said=said)
    prepare(module, upgrade)
    if state == "prepared":
        said.append(f"pg_upgrade --check of {new} has nothing to say against it; the apps have noticed nothing")
        return dict(changed=True, due=True, old=old, said=said)
    switch(upgrade)
    upgrade.finish()
    return dict(changed=True, due=False, old=old, said=plan.report(upgrade.note))


def prepare(module: AnsibleModule, upgrade: Upgrade) -> None:
    try:
        upgrade.prepare(lambda: configure(module))
    except TROUBLE as error:
        raise plan.Refused(
            f"{error}\nNothing was switched: cluster {upgrade.old_version}/main serves as before"
        ) from error


def switch(upgrade: Upgrade) -> None:
    """Or put the old cluster back, and say so."""
    try:
        upgrade.switch()
    except TROUBLE as error:
        if not plan.untouched(upgrade.note):
            back = "" if upgrade.note["mode"] == "link" else ", or go back: -e back=true"
            raise Failed(
                f"{error}\nThe data is in version {upgrade.wanted}: mend that, and run this again{back}"
            ) from error
        upgrade.put_back()
        raise Failed(f"{error}\nThe old cluster, {upgrade.old_version}/main, serves again, as it was") from error


def go_back(module: AnsibleModule, upgrade: Upgrade) -> Dict[str, Any]:
    step = plan.decide_return(upgrade.note)
    old, new = upgrade.note["from"], upgrade.note["to"]
    advice = f"set postgresql_version to '{old}' in the inventory; until then site.yml refuses this host"
    if step == plan.NOTHING:
        return dict(changed=False, due=False, old=old, said=[f"the data is in version {old} again; {advice}"])
    lost = upgrade.lost()
    if lost and not module.params["accept_loss"]:
        lines = "\n".join(f"  - {line}" for line in lost[:20])
        more = f"\n  … and {len(lost) - 20} more" if len(lost) > 20 else ""
        raise plan.Refused(
            f"since the switch to {new}, this was written, and going back loses it:\n{lines}{more}\n"
            "To go back all the same: -e back=true -e accept_loss=true"
        )
    if module.check_mode:
        return dict(changed=True, due=True, old=old, said=[f"the data would be in version {old} again", *lost])
    seconds = upgrade.give_back()
    said = [
        f"PostgreSQL {new} -> {old}: the old cluster serves again, as it was at {upgrade.note['said']['when']}",
        f"the apps were without the database for {seconds:.1f} s",
        "nothing was written since the switch, so nothing is lost" if not lost else "lost, as it was written since:",
        *lost,
        f"the new cluster is kept until the next upgrade, stopped and disabled, in /var/lib/postgresql/{new}/main",
        advice,
    ]
    return dict(changed=True, due=False, old=old, said=said)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            file_set.argument_spec(),
            version=dict(type="str", required=True),
            state=dict(type="str", choices=["checked", "prepared", "upgraded", "returned"], default="upgraded"),
            link=dict(type="bool", default=False),
            backup_hours=dict(type="float", default=26),
            backups=dict(type="list", elements="path", default=[]),
            accept_loss=dict(type="bool", default=False),
            pooler_port=dict(type="int", default=0),
            replication=dict(type="dict", default={}),
            timeout=dict(type="int", default=60),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    given = module.params
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, stopped)
    result: Dict[str, Any] = {}
    try:
        with alone():
            names = ("link", "backup_hours", "backups", "pooler_port", "replication", "timeout")
            upgrade = Upgrade(given["version"], **{name: given[name] for name in names})
            result = go_back(module, upgrade) if given["state"] == "returned" else move(module, upgrade)
    except plan.Refused as error:
        module.fail_json(msg=f"PostgreSQL was not moved: {error}")
    except TROUBLE as error:
        module.fail_json(msg=f"The upgrade of PostgreSQL failed: {error}")
    if module._diff and result["changed"]:
        text = "".join(f"{line}\n" for line in result["said"])
        result["diff"] = [dict(before="", after=text, before_header="PostgreSQL", after_header="PostgreSQL")]
    module.exit_json(**result)


if __name__ == "__main__":
    main()
