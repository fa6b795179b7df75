#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: pgbouncer_logins
short_description: Log in through PgBouncer as each app does
version_added: 0.1.0
description:
  - Logs in with the role of every pool over the loopback interface, and asks the server who and where it is.
  - Fails with all pools that let nobody in. Changes nothing.
options:
  port: {description: Port it listens on., type: int, default: 6432}
  pools:
    description: The pools, each with a role that logs in.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: What messages call it., type: str}
      database: {description: Name of the database., type: str, required: true}
      entry: {description: "What clients call it; by default the database's name.", type: str}
      role: {description: Role that logs in., type: str, required: true}
      size: {description: Not read here., type: int}
      password: {description: Its password. Left out it is read from O(secrets_directory)., type: str}
      addresses: {description: Not read here., type: list, elements: str, default: []}
  secrets_directory:
    description: Where generated passwords are kept.
    type: path
    default: /etc/shipshape/postgresql
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Verify | Log in as the shop does
  shipshape.droplet.pgbouncer_logins:
    pools: [{database: shop, role: shop}]
"""

RETURN = r"""
roles: {description: Roles that could log in., type: list, elements: str, returned: success}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import pgbouncer_server, secret_file


def main() -> None:
    pool = dict(
        name=dict(type="str"),
        database=dict(type="str", required=True),
        entry=dict(type="str"),
        role=dict(type="str", required=True),
        size=dict(type="int"),
        password=dict(type="str", no_log=True),
        addresses=dict(type="list", elements="str", default=[]),
    )
    module = AnsibleModule(
        argument_spec=dict(
            port=dict(type="int", default=6432),
            pools=dict(type="list", elements="dict", required=True, options=pool),
            secrets_directory=dict(type="path", default="/etc/shipshape/postgresql", no_log=False),
        ),
        supports_check_mode=True,
    )
    port, pools = module.params["port"], module.params["pools"]
    try:
        found = pgbouncer_server.refusals(pools, port, module.params["secrets_directory"])
    except (secret_file.UnsafeSecret, OSError) as error:
        module.fail_json(msg=str(error))
    if found:
        module.fail_json(msg=pgbouncer_server.explain(found, port))
    module.exit_json(changed=False, roles=[each["role"] for each in pools])


if __name__ == "__main__":
    main()
