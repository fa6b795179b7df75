#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_cluster
short_description: Bring the local PostgreSQL cluster with its configuration, roles and databases to the declared state
version_added: 0.1.0
description:
  - Applies the files as M(shipshape.droplet.files) does, has the cluster run with the configuration on disk (start,
    reload, or one restart when a changed setting needs it), then creates what is missing of the declared roles,
    databases, extensions and grants. All of it is one trip.
  - Never drops anything.
  - Talks to the server through C(psql) over its socket, as C(postgres); nothing need be installed beside the server.
  - Passwords are turned into SCRAM verifiers here and compared with the stored ones. The server never sees a password.
  - In check mode the same plan is made and not applied. Without a server on the host all of it would be created.
extends_documentation_fragment: [shipshape.droplet.file_set]
options:
  version:
    description: Major version of the cluster.
    type: str
    required: true
  roles:
    description: Login roles. None is a superuser, bypasses row-level security or creates roles or databases.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the role., type: str, required: true}
      password:
        description: Its password. Left out, one is made once and kept in O(secrets_directory) as C(<name>.password).
        type: str
      connection_limit: {description: Connections it may have at once. Left out, any number., type: int}
      replication: {description: Whether replicas log in as it., type: bool, default: false}
  databases:
    description: Databases. Only the owner and the roles in O(clients) may connect.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Name of the database., type: str, required: true}
      owner: {description: Role that owns it and its schema public., type: str, required: true}
      extensions: {description: Extensions to create in it., type: list, elements: str, default: []}
      locale: {description: Collation and character classes of a new database., type: str, default: C.UTF-8}
      load:
        description:
          - A file for M(shipshape.droplet.postgresql_load). It is not loaded here; RV(loads) says whether it is to be.
        type: str
      schemas:
        description: Schemas to create in it. Their owners may connect.
        type: list
        elements: dict
        default: []
        suboptions:
          name: {description: Name of the schema., type: str, required: true}
          owner: {description: Role that owns it., type: str, required: true}
      readers:
        description: Roles that may connect, and read all that another role has in the database and will have.
        type: list
        elements: dict
        default: []
        suboptions:
          role: {description: Role that reads., type: str, required: true}
          owner: {description: Role whose schemas and tables it reads., type: str, required: true}
      partitions: {description: Tables with monthly partitions. Not read here., type: list, elements: dict, default: []}
  clients:
    description: Which roles beside the owner may connect to which database. Other keys of an entry are not read.
    type: list
    elements: dict
    default: []
  replication:
    description:
      - What the host has to know of the other ones with the same databases. C(name) is its own, C(peers) are the others
        (C(name), C(address)). With C(primary) and C(primary_address) the cluster is a replica of that one; its data is
        a copy then, so that nothing of O(roles), O(databases) and O(clients) is created here.
      - What a replica had of its own before is kept beside, in a directory whose name ends with C(.kept-) and the time.
    type: dict
    default: {}
  secrets:
    description: Generated passwords of the primary by role, which a replica keeps for the day it is promoted.
    type: dict
    default: {}
  secrets_directory:
    description: Where generated passwords are kept, readable by root only.
    type: path
    default: /etc/shipshape/postgresql
  timeout:
    description: Seconds to wait for the server after a start or restart.
    type: int
    default: 60
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Service | Run with its settings, create the shop's database with a generated password
  shipshape.droplet.postgresql_cluster:
    version: "15"
    roles: [{name: shop}]
    databases: [{name: shop, owner: shop, extensions: [pgcrypto]}]
    files:
      - {path: /etc/postgresql/15/main/conf.d/shop.conf, template: shop.conf.j2}
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
  sample: [reload the configuration, create role shop, create database shop]
loads:
  description: Databases whose file is still to be loaded.
  type: list
  elements: str
  returned: success
"""

import os
from typing import Any, Dict, List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import file_set, secret_file, umask
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_replication as replicating
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_standby as standby
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import (
    Cluster,
    ServerError,
    another_version,
    settle,
)

PASSWORD_LENGTH = 32


def rows(*keys: str) -> Dict[str, Any]:
    """A list of dictionaries of texts, all required."""
    return dict(
        type="list", elements="dict", default=[], options={key: dict(type="str", required=True) for key in keys}
    )


def argument_spec() -> Dict[str, Any]:
    return dict(
        file_set.argument_spec(),
        version=dict(type="str", required=True),
        roles=dict(
            type="list",
            elements="dict",
            default=[],
            no_log=False,
            options=dict(
                name=dict(type="str", required=True),
                password=dict(type="str", no_log=True),
                connection_limit=dict(type="int"),
                replication=dict(type="bool", default=False),
            ),
        ),
        databases=dict(
            type="list",
            elements="dict",
            default=[],
            options=dict(
                name=dict(type="str", required=True),
                owner=dict(type="str", required=True),
                extensions=dict(type="list", elements="str", default=[]),
                locale=dict(type="str", default=planning.DEFAULT_LOCALE),
                load=dict(type="str"),
                schemas=rows("name", "owner"),
                readers=rows("role", "owner"),
                partitions=dict(type="list", elements="dict", default=[]),
            ),
        ),
        clients=dict(type="list", elements="dict", default=[]),
        replication=dict(type="dict", default={}),
        secrets=dict(type="dict", default={}, no_log=True),
        secrets_directory=dict(type="path", default="/etc/shipshape/postgresql", no_log=False),
        timeout=dict(type="int", default=60),
    )


def require_cluster(module: AnsibleModule, cluster: Cluster) -> None:
    """Stop where going on would work on another cluster than the one that holds the data."""
    refusal = another_version(cluster.version)
    if refusal:
        module.fail_json(msg=refusal)
    if module.check_mode:
        return
    if not cluster.installed:
        module.fail_json(msg=f"PostgreSQL {cluster.version} is not installed here: {cluster.binaries}/psql is missing")
    if not cluster.exists:
        module.fail_json(
            msg=f"PostgreSQL {cluster.version} is installed and has no cluster '{cluster.name}'. "
            f"Create it: pg_createcluster {cluster.version} {cluster.name}"
        )


def fill_passwords(roles: List[Dict[str, Any]], directory: str, check_mode: bool) -> List[str]:
    """Give every role without a password its kept one, making it if need be; returns whose were made."""
    made = []
    for role in roles:
        if role["password"] or planning.name_problem(role["name"]):
            continue
        path = os.path.join(directory, "{}.password".format(role["name"]))
        role["password"] = secret_file.read(path)
        if role["password"] is None:
            role["password"] = secret_file.generate(PASSWORD_LENGTH)
            made.append("generate the password of role {}".format(role["name"]))
            if not check_mode:
                secret_file.write(path, role["password"])
    return made


def keep_passwords(secrets: Dict[str, str], directory: str, check_mode: bool) -> List[str]:
    """Have the primary's generated passwords here, too; returns whose were written."""
    written = []
    for name, secret in sorted(secrets.items()):
        path = os.path.join(directory, f"{name}.password")
        if secret_file.read(path) == secret:
            continue
        written.append(f"keep the password of role {name}")
        if not check_mode:
            secret_file.write(path, secret)
    return written


def be_replica(module: AnsibleModule, cluster: Cluster, result: Dict[str, Any]) -> List[str]:
    """Everything on a host whose databases are copies of another's."""
    wanted = module.params["replication"]
    result["loads"] = []
    done: List[str] = keep_passwords(module.params["secrets"], module.params["secrets_directory"], module.check_mode)
    done += standby.follow(cluster, wanted, module.params["timeout"], not module.check_mode)
    return done


def read_state(cluster: Cluster, wanted: List[Dict[str, Any]]) -> planning.State:
    found = cluster.query(planning.SERVER_STATE)
    state = planning.State(
        int(cluster.version),
        found["roles"],
        found["databases"],
        found["available"],
        connections=found["connections"],
        slots=found["slots"],
        uncounted=found["statements"],
    )
    for database in wanted:
        if database["name"] in state.databases:
            state.details[database["name"]] = cluster.query(planning.database_state(database), database["name"])
    return state


def apply(module: AnsibleModule, cluster: Cluster, actions: List[planning.Action]) -> None:
    for action in actions:
        try:
            cluster.execute(action.sql + ";", action.database)
        except ServerError as error:
            # What was done stays done (nothing here can be wrong to have), and the next run goes on from there.
            module.fail_json(msg=f"cannot {action.summary}: {error}")


def main() -> None:
    module = AnsibleModule(argument_spec=argument_spec(), supports_check_mode=True)
    umask.ordinary()
    wanted = module.params
    databases, clients = wanted["databases"], wanted["clients"]
    # Copies: what is filled in here must not show up among the arguments, which -vvvv prints.
    roles = [dict(role) for role in wanted["roles"]]
    cluster = Cluster(wanted["version"])
    require_cluster(module, cluster)
    # No unit is named to be restarted: the server itself is asked whether what is on disk is in force.
    result = file_set.converge(module, file_set.declared(module))
    if wanted["replication"].get("primary"):
        try:
            actions = be_replica(module, cluster, result)
        except (ServerError, secret_file.UnsafeSecret, OSError) as error:
            module.fail_json(msg=str(error))
        finish(module, result, actions)
    peers = wanted["replication"].get("peers") or []
    if peers:
        roles.append(dict(name=replicating.ROLE, password=None, replication=True))
    try:
        if cluster.exists and cluster.installed:
            if not module.check_mode:
                # A promotion that went no further than to stop it.
                standby.unmask(cluster)
            done, settings = settle(cluster, wanted["timeout"], apply=not module.check_mode)
            if settings and settings["version"] != int(cluster.version):
                module.fail_json(
                    msg=f"the server on port {cluster.port} is PostgreSQL {settings['version']}, not {cluster.version}"
                )
            if settings and settings["standby"]:
                module.fail_json(
                    msg="the cluster here is a replica, and this host is noted as the primary. Nothing was created. "
                    "playbooks/promote.yml makes a primary of it, and says how far behind it is."
                )
            state = read_state(cluster, databases) if settings else planning.State(int(cluster.version))
        else:
            done, settings, state = [], None, planning.State(int(cluster.version))
        problems = planning.find_problems(state, roles, databases, clients)
        if problems:
            module.fail_json(msg="\n".join(problems))
        done += fill_passwords(roles, wanted["secrets_directory"], module.check_mode)
        slots = replicating.plan_slots(state.slots, [peer["name"] for peer in peers])
        plan = (
            planning.plan_server(state)
            + planning.plan_roles(state, roles)
            + planning.plan_databases(state, databases, clients)
            + [planning.Action(summary, sql) for summary, sql in slots]
        )
        result["loads"], passed_over = planning.plan_loads(state, databases)
        if not module.check_mode:
            apply(module, cluster, plan)
    except (ServerError, secret_file.UnsafeSecret, OSError) as error:
        module.fail_json(msg=str(error))
    actions = done + [action.summary for action in plan]
    files = {database["name"]: database["load"] for database in databases}
    if module.check_mode:
        actions += [f"load {files[name]} into database {name}" for name in result["loads"]]
    for name in passed_over:
        module.warn(
            f"database {name} has tables or the like already, so {files[name]} is not loaded: it is for a new one"
        )
    finish(module, result, actions)


def finish(module: AnsibleModule, result: Dict[str, Any], actions: List[str]) -> None:
    result["actions"] += actions
    result["changed"] = result["changed"] or bool(actions)
    if module._diff and actions:
        lines = "".join(action + "\n" for action in actions)
        result["diff"].append(dict(before="", after=lines, before_header="PostgreSQL", after_header="PostgreSQL"))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
