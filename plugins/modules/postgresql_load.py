#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_load
short_description: Load a file of SQL or a dump into a new database, once
version_added: 0.1.0
description:
  - Loads plain SQL (also with gzip) or a dump in pg_dump's custom format as the owner of the database, in one
    transaction. The record that it was loaded, a comment on the database, is part of it. So a load that fails or is
    killed leaves nothing.
  - A database that was loaded once, or in which there is something of somebody's already, is left alone.
  - What a dump says of the roles of another server is left out; all of it belongs to the owner.
options:
  version: {description: Major version of the cluster., type: str, required: true}
  database: {description: Name of the database., type: str, required: true}
  owner: {description: Role that owns it., type: str, required: true}
  password: {description: "Its password; left out, the one that is kept on the host.", type: str}
  path: {description: The file on the host., type: path, required: true}
  name: {description: What the operator calls the file., type: str, required: true}
  remove: {description: Remove the file in any case., type: bool, default: false}
  secrets_directory:
    description: Where generated passwords are kept.
    type: path
    default: /etc/shipshape/postgresql
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Load | Load the schema into the new database
  shipshape.droplet.postgresql_load:
    {version: "15", database: shop, owner: shop, path: /var/lib/shipshape/postgresql/shop, name: schema.sql}
"""

RETURN = r"""
lines: {description: Lines of SQL that were run., type: int, returned: success}
"""

import os

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_dump as dump
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_loader import Torn, load, password_of
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import Cluster, ServerError


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            version=dict(type="str", required=True),
            database=dict(type="str", required=True),
            owner=dict(type="str", required=True),
            password=dict(type="str", no_log=True),
            path=dict(type="path", required=True),
            name=dict(type="str", required=True),
            remove=dict(type="bool", default=False),
            secrets_directory=dict(type="path", default="/etc/shipshape/postgresql", no_log=False),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    wanted = module.params
    cluster = Cluster(wanted["version"])
    try:
        found = cluster.query(planning.database_state({}), wanted["database"])
        if planning.load_state(found) != planning.NEW:
            module.exit_json(changed=False, lines=0)
        count = 0 if module.check_mode else load(cluster, wanted, password_of(wanted), list(found["schemas"]))
    except Torn as error:
        module.fail_json(msg=f"{wanted['name']} cannot be loaded into database {wanted['database']}: {error}")
    except (dump.Unloadable, ServerError, secret_file.UnsafeSecret, OSError) as error:
        where = f"database {wanted['database']}, which is as empty as before"
        module.fail_json(msg=f"{wanted['name']} was not loaded into {where}: {error}")
    finally:
        if wanted["remove"] and not module.check_mode and os.path.exists(wanted["path"]):
            os.remove(wanted["path"])
    module.exit_json(changed=True, lines=count)


if __name__ == "__main__":
    main()
