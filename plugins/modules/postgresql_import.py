#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: postgresql_import
short_description: Bring the dump of an old host into a database that is in use
version_added: 0.1.0
description:
  - Loads plain SQL (also with gzip) or a dump in pg_dump's custom format as M(shipshape.droplet.postgresql_load) does.
  - An empty database takes it in itself. Beside one that has something in it, a database NAME_import is made, and
    nothing that lives is touched; with O(replace) the two then change names in one transaction, and the former data
    stays as NAME_before_TIME.
  - A dump that cannot be loaded to its end leaves nothing behind. The same dump once more is no change.
options:
  version: {description: Major version of the cluster., type: str, required: true}
  database:
    description: The database as the role M(shipshape.droplet.postgresql_cluster) is given it.
    type: dict
    required: true
  clients: {description: Which roles may connect to it., type: list, elements: dict, default: []}
  password: {description: "The owner's password; left out, the one that is kept on the host.", type: str}
  path: {description: The file on the host., type: path, required: true}
  name: {description: What the operator calls the file., type: str, required: true}
  replace: {description: Whether it takes the place of what is there., type: bool, default: false}
  remove: {description: Remove the file in any case., type: bool, default: false}
  secrets_directory:
    description: Where generated passwords are kept.
    type: path
    default: /etc/shipshape/postgresql
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Import | Take the old host's data over
  shipshape.droplet.postgresql_import:
    version: "15"
    database: {name: shop, owner: shop, extensions: []}
    path: /var/lib/shipshape/postgresql/shop.import
    name: shop.dump
    replace: true
"""

RETURN = r"""
summary: {description: "What was imported, where to and in how long.", type: str, returned: success}
"""

import datetime
import hashlib
import os
import time
from typing import Any, Dict, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_dump as dump
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_plan as planning
from ansible_collections.shipshape.droplet.plugins.module_utils import secret_file, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_loader import Torn, load, password_of
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_names import quote_name, quote_text
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import Cluster, ServerError

#: An app that logs in between the two lines of a change of names is sent away once more.
ATTEMPTS = 5
COUNTS = """
SELECT json_build_object('bytes', pg_database_size(current_database()), 'tables', (SELECT count(*) FROM pg_class
  JOIN pg_namespace ON pg_namespace.oid = relnamespace
  WHERE relkind IN ('r', 'p') AND nspname !~ '^pg_' AND nspname <> 'information_schema'))
"""


class Refused(Exception):
    """It is not done as things are: why, and what to do."""


def marked(path: str, name: str) -> str:
    """The file's name, and what tells it from another of that name."""
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for chunk in iter(lambda: handle.read(1 << 20), b""):
            digest.update(chunk)
    return f"{name} ({digest.hexdigest()[:16]})"


def inside(cluster: Cluster, name: str) -> Optional[Dict[str, Any]]:
    """What is in a database; nothing where there is none."""
    there = cluster.query(f"SELECT json_build_array(count(*)) FROM pg_database WHERE datname = {quote_text(name)}")
    found: Optional[Dict[str, Any]] = cluster.query(planning.database_state({}), name) if there[0] else None
    return found


def was_loaded(found: Optional[Dict[str, Any]], label: str) -> bool:
    return ((found or {}).get("comment") or "").startswith(f"{planning.LOADED} {label} on ")


def make(cluster: Cluster, wanted: Dict[str, Any], beside: str) -> None:
    """A database with the extensions, schemas and rights of the one it is beside."""
    state = planning.State(int(cluster.version))
    clients = [dict(client, database=beside) for client in wanted["clients"] if client["database"] == wanted["name"]]
    for action in planning.plan_databases(state, [dict(wanted["database"], name=beside)], clients):
        cluster.execute(action.sql + ";", action.database)


def change_names(cluster: Cluster, name: str, beside: str) -> str:
    """In one transaction, so that at every moment there is a database of that name; what the former is called now."""
    former = f"{name}_before_{datetime.datetime.now(datetime.timezone.utc):%Y%m%d%H%M%S}"
    statements = (
        f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = {quote_text(name)};\n"
        f"BEGIN;\nALTER DATABASE {quote_name(name)} RENAME TO {quote_name(former)};\n"
        f"ALTER DATABASE {quote_name(beside)} RENAME TO {quote_name(name)};\nCOMMIT;"
    )
    for left in range(ATTEMPTS - 1, -1, -1):
        try:
            cluster.execute(statements)
            break
        except ServerError as error:
            if left == 0 or "being accessed" not in str(error):
                raise
    return former


def bring_in(cluster: Cluster, wanted: Dict[str, Any], check_mode: bool) -> Dict[str, Any]:
    name, started = wanted["name"], time.monotonic()
    beside = f"{name}_import"
    label = marked(wanted["path"], wanted["file"]) if os.path.exists(wanted["path"]) else wanted["file"]
    live, other = inside(cluster, name), inside(cluster, beside)
    if live is None:
        raise Refused(f"there is no database {name} here yet: run site.yml first")
    empty = planning.load_state(live) == planning.NEW
    if not wanted["replace"]:
        for where, found in ((name, live), (beside, other)):
            if was_loaded(found, label):
                return {"changed": False, "summary": f"{wanted['file']} was imported into database {where} already"}
    if not empty and planning.name_problem(f"{name}_before_20000101000000"):
        raise Refused(f"the name of database {name} is too long for a second one beside it")
    if not empty and other is not None and planning.load_state(other) != planning.NEW:
        raise Refused(
            f"database {beside} is there already. Take what you need of it, drop it "
            f"(sudo -u postgres dropdb {beside}) and import again"
        )
    into = name if empty else beside
    if check_mode:
        then = ", and takes the place of what is there" if wanted["replace"] and not empty else ""
        return {"changed": True, "summary": f"{wanted['file']} would be loaded into database {into}{then}"}
    if not empty and other is not None:
        # Made by a run that was cut off before it had loaded anything.
        cluster.execute(f"DROP DATABASE {quote_name(beside)};")
    try:
        if not empty:
            make(cluster, wanted, beside)
        schemas = list((inside(cluster, into) or live)["schemas"])
        load(cluster, {**wanted, "database": into, "name": label}, password_of(wanted), schemas)
        cluster.execute("ANALYZE;", into)
        counts = cluster.query(COUNTS, into)
    except BaseException:
        if not empty:
            cluster.execute(f"DROP DATABASE IF EXISTS {quote_name(beside)};")
        raise
    end = ""
    if not empty and wanted["replace"]:
        former = change_names(cluster, name, beside)
        into, end = name, f". What was there is database {former} now"
    elif not empty:
        end = f". Database {name}, which has data, is as it was; -e replace=true puts the import in its place"
    seconds = time.monotonic() - started
    said = f"{counts['tables']} tables, {counts['bytes']} bytes, in {seconds:.1f} s"
    return {"changed": True, "summary": f"{wanted['file']} is now database {into}: {said}{end}"}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            version=dict(type="str", required=True),
            database=dict(type="dict", required=True),
            clients=dict(type="list", elements="dict", default=[]),
            password=dict(type="str", no_log=True),
            path=dict(type="path", required=True),
            name=dict(type="str", required=True),
            replace=dict(type="bool", default=False),
            remove=dict(type="bool", default=False),
            secrets_directory=dict(type="path", default="/etc/shipshape/postgresql", no_log=False),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    given = module.params
    database = {"extensions": [], **given["database"]}
    wanted = {
        **given,
        "file": given["name"],
        "name": database["name"],
        "owner": database["owner"],
        "database": database,
    }
    result: Dict[str, Any] = {}
    try:
        result = bring_in(Cluster(given["version"]), wanted, module.check_mode)
    except Refused as error:
        module.fail_json(msg=f"{given['name']} was not imported: {error}")
    except (dump.Unloadable, Torn, ServerError, secret_file.UnsafeSecret, OSError) as error:
        module.fail_json(msg=f"{given['name']} was not imported, and database {database['name']} is as it was: {error}")
    finally:
        if given["remove"] and not module.check_mode and os.path.exists(given["path"]):
            os.remove(given["path"])
    module.exit_json(**result)


if __name__ == "__main__":
    main()
