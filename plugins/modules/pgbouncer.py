#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer
short_description: Bring the local PgBouncer with its configuration and its rights in PostgreSQL to the declared state
version_added: 0.1.0
description:
  - Gives PgBouncer its role in the local PostgreSQL, without a password and without any right but to call one function
    in each pooled database, which tells the verifier of a role that may connect there.
  - Applies the files as M(shipshape.droplet.files) does, and has what O(settings) say in force, for which PgBouncer
    itself is asked.
  - Refuses pools that need more connections than the server gives, before anything is changed.
  - Logs in through PgBouncer with every pool's role when anything changed that could keep it from working, and again
    at each run until that has worked once.
  - In check mode the same plan is made and not applied. Without a server on the host all of it would be created.
extends_documentation_fragment: [shipshape.droplet.file_set]
options:
  port: {description: Port it listens on., type: int, default: 6432}
  pools:
    description: The pools, each with a role that logs in.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: What messages call it., type: str}
      database: {description: Name of the database., type: str, required: true}
      entry: {description: "What clients call it; by default the database's name.", type: str}
      role: {description: Role that logs in., type: str, required: true}
      size: {description: Connections to the server., type: int, required: true}
      password: {description: Its password. Left out it is read from O(secrets_directory)., type: str}
      addresses: {description: Not read here., type: list, elements: str, default: []}
  reserve: {description: Further connections that each pool may take., type: int, default: 0}
  settings:
    description: Settings by name that the files say, and that must be in force.
    type: dict
    default: {}
  secrets_directory:
    description: Where generated passwords are kept.
    type: path
    default: /etc/shipshape/postgresql
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Service | Run with its configuration
  shipshape.droplet.pgbouncer:
    pools: [{database: shop, role: shop, size: 20}]
    files:
      - {path: /etc/pgbouncer/shop.ini, template: shop.ini.j2, reload: pgbouncer.service}
    units:
      - {name: pgbouncer.service, enabled: true, state: started}
"""

RETURN = r"""
changed_files:
  description: The paths that were (or in check mode would be) created, changed or removed.
  type: list
  elements: str
  returned: success
actions:
  description: What was done, or in check mode would be done, in order.
  type: list
  elements: str
  returned: success
  sample: [create role pgbouncer, reload pgbouncer.service, log in through PgBouncer]
"""

import hashlib
import json
import os
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    file_entry,
    file_set,
    pgbouncer_server,
    secret_file,
    systemd_units,
    umask,
)
from ansible_collections.shipshape.droplet.plugins.module_utils import pgbouncer_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import ServerError

UNIT = "pgbouncer.service"
#: Of which state of things a login has shown that they work.
PROVEN = "/var/lib/shipshape/pgbouncer.proven"
#: Seconds for a start or a reload to be in force.
PATIENCE = 10


def pool_options() -> Dict[str, Any]:
    return dict(
        type="list",
        elements="dict",
        default=[],
        options=dict(
            name=dict(type="str"),
            database=dict(type="str", required=True),
            entry=dict(type="str"),
            role=dict(type="str", required=True),
            size=dict(type="int", required=True),
            password=dict(type="str", no_log=True),
            addresses=dict(type="list", elements="str", default=[]),
        ),
    )


def ask(module: AnsibleModule, server: pgbouncer_server.Server) -> Optional[Dict[str, Any]]:
    """What the server is; None in a check of a host that has none yet."""
    try:
        found: Dict[str, Any] = server.query(planning.SERVER_STATE)
        return found
    except (ServerError, OSError, KeyError) as error:
        if module.check_mode:
            return None
        module.fail_json(msg=f"PostgreSQL does not answer on this host, where PgBouncer is to lead to it: {error}")
    return None


def plan(module: AnsibleModule, server: pgbouncer_server.Server, state: Optional[Dict[str, Any]]) -> List[Any]:
    """The statements that give PgBouncer its rights; fails when something stands against them."""
    pools = module.params["pools"]
    databases = dict.fromkeys(pool["database"] for pool in pools)
    if state is None:
        whole: List[Any] = planning.plan_role(None)
        return whole + [action for name in databases for action in planning.plan_database(name, None)]
    wrong = [] if module.check_mode else planning.problems(pools, state["databases"])
    wrong += [why for why in [planning.shortage(pools, module.params["reserve"], state["connections"])] if why]
    actions: List[Any] = planning.plan_role(state["role"])
    for name in databases:
        inside = None
        if name in state["databases"]:
            inside = server.query(planning.DATABASE_STATE, name)
            wrong += [why for why in [planning.schema_problem(name, inside)] if why]
        actions += planning.plan_database(name, inside)
    wrong += unknown_settings(module)
    if wrong:
        module.fail_json(msg="\n".join(wrong))
    return actions


def unknown_settings(module: AnsibleModule) -> List[str]:
    """What a running PgBouncer does not know by name: with it in its files, it would not start again."""
    found = pgbouncer_server.in_force(module.params["port"]) if module.get_bin_path("psql") else None
    names = [name for name in sorted(module.params["settings"]) if found and name not in found]
    return [f"pgbouncer_settings.{name} is no setting of this PgBouncer; check the spelling" for name in names]


def bring_into_force(module: AnsibleModule, acted: bool) -> List[str]:
    """Reload what somebody has undone, and fail when PgBouncer still says something else than the files."""
    settings, port = module.params["settings"], module.params["port"]
    if module.check_mode:
        found = pgbouncer_server.in_force(port) if module.get_bin_path("psql") else None
        return [f"reload {UNIT}"] if found and not acted and pgbouncer_server.differing(settings, found) else []
    wrong = pgbouncer_server.wait_for(settings, port, PATIENCE if acted else 0)
    if not wrong:
        return []
    actions: List[str] = []
    if not acted:
        unit = dict(name=UNIT, state="reloaded", enabled=None, masked=None, optional=False)
        actions = systemd_units.converge(module, [unit])
        wrong = pgbouncer_server.wait_for(settings, port, PATIENCE)
    if wrong:
        module.fail_json(
            msg="What PgBouncer has in force is not what was declared: {}. Look at pgbouncer_settings.\n"
            "The end of its journal:\n{}".format("; ".join(wrong), pgbouncer_server.journal())
        )
    return actions


def fingerprint(module: AnsibleModule, entries: List[file_entry.Entry], state: Dict[str, Any]) -> str:
    """All that a login depends on."""
    pools = [[pool["database"], pool["role"], state["verifiers"].get(pool["role"])] for pool in module.params["pools"]]
    texts = [entry.data.decode("utf-8") for entry in entries if entry.data is not None]
    return hashlib.sha256(json.dumps([module.params["port"], pools, texts]).encode()).hexdigest()


def prove(module: AnsibleModule, wanted: str) -> List[str]:
    """Log in with every pool's role unless that has been shown to work."""
    if not module.params["pools"] or secret_file.read(PROVEN) == wanted:
        return []
    port, directory = module.params["port"], module.params["secrets_directory"]
    found = pgbouncer_server.refusals(module.params["pools"], port, directory, PATIENCE)
    if found:
        module.fail_json(msg=pgbouncer_server.explain(found, port))
    os.makedirs(os.path.dirname(PROVEN), mode=0o755, exist_ok=True)
    secret_file.write(PROVEN, wanted)
    return ["log in through PgBouncer"]


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            file_set.argument_spec(),
            port=dict(type="int", default=6432),
            pools=pool_options(),
            reserve=dict(type="int", default=0),
            settings=dict(type="dict", default={}),
            secrets_directory=dict(type="path", default="/etc/shipshape/postgresql", no_log=False),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    server = pgbouncer_server.Server()
    try:
        state = ask(module, server)
        statements = plan(module, server, state)
        for action in [] if module.check_mode else statements:
            server.execute(action.sql + ";", action.database)
        entries = file_set.declared(module)
        result = file_set.converge(module, entries)
        done = [action.summary for action in statements]
        done += bring_into_force(module, bool(result["actions"]))
        if state is not None and not module.check_mode:
            done += prove(module, fingerprint(module, entries, state))
    except (ServerError, secret_file.UnsafeSecret, OSError) as error:
        module.fail_json(msg=str(error))
    result["actions"] += done
    result["changed"] = result["changed"] or bool(done)
    if module._diff and done:
        lines = "".join(action + "\n" for action in done)
        result["diff"].append(dict(before="", after=lines, before_header="PgBouncer", after_header="PgBouncer"))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
