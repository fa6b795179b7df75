#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: rebuild
short_description: Begin and end giving a bare droplet what a lost one had
version_added: 0.1.0
description:
  - C(begun) sees that the droplet is bare (no database with tables, no file in the apps' folders) and keeps a mark from
    which moment it is rebuilt. While the mark is there and not C(finished), the droplet's programs store no backup. A
    droplet whose mark is from an earlier run that was killed goes on; one that is finished is left alone.
  - C(finished) notes what was restored, for the report.
  - In check mode nothing is kept, and a bare droplet is said to change.
options:
  state: {description: Which of the two., type: str, choices: [begun, finished], required: true}
  restore_from:
    description: The moment to go back to, C(latest) or a time (UTC unless it says otherwise).
    type: str
    required: true
  folders: {description: Folders that must be empty or absent., type: list, elements: path, default: []}
  restored: {description: What was restored, as lines., type: list, elements: str, default: []}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Rebuild | See that the droplet is bare
  shipshape.droplet.rebuild:
    state: begun
    restore_from: latest
    folders: [/var/lib/shipshape/shop]
  register: __rebuild
"""

RETURN = r"""
under_way: {description: Whether there is something to restore now., type: bool, returned: success}
wanted: {description: The moment as the programs take it., type: str, returned: success}
server_restored: {description: Whether an earlier run has restored the database server., type: bool, returned: success}
summary: {description: What an operator reads., type: str, returned: success}
"""

import datetime
import glob
import os
import re
from typing import List

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import rebuild, umask
from ansible_collections.shipshape.droplet.plugins.module_utils.postgresql_server import Cluster, ServerError


def port_of(version: str, name: str) -> int:
    try:
        with open(f"/etc/postgresql/{version}/{name}/postgresql.conf", encoding="utf-8") as handle:
            found = re.findall(r"^port\s*=\s*(\d+)", handle.read(), re.MULTILINE)
    except OSError:
        found = []
    return int(found[-1]) if found else 5432


def tables() -> List[str]:
    """What the databases of this host have, cluster by cluster."""
    found = []
    for path in sorted(glob.glob("/var/lib/postgresql/*/*/PG_VERSION")):
        version, name = path.split("/")[4:6]
        cluster = Cluster(version, name, port_of(version, name))
        try:
            for database in cluster.query(rebuild.DATABASES):
                count = cluster.query(rebuild.TABLES, database)["tables"]
                found += [f"database {database} has {count} tables"] if count else []
        except (ServerError, OSError):
            made = rebuild.databases_on_disk(os.path.dirname(path))
            found += [f"cluster {version}/{name} has {made} databases and does not answer"] if made else []
    return found


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            state=dict(type="str", choices=["begun", "finished"], required=True),
            restore_from=dict(type="str", required=True),
            folders=dict(type="list", elements="path", default=[]),
            restored=dict(type="list", elements="str", default=[]),
        ),
        supports_check_mode=True,
    )
    umask.ordinary()
    now = datetime.datetime.now(datetime.timezone.utc).replace(microsecond=0)
    try:
        wanted = rebuild.moment(module.params["restore_from"], now)
        mark = rebuild.read_mark()
        begun = rebuild.goes_on(mark, wanted)
        found = []
        if not begun:
            counts = [(folder, rebuild.count_files(folder)) for folder in module.params["folders"]]
            found = tables() + [f"{folder} has {count} files" for folder, count in counts if count]
        problem = rebuild.refusal(found)
    except (rebuild.Refused, ValueError, OSError) as error:
        problem = str(error)
    if problem:
        module.fail_json(msg=problem)
    done = bool(mark.get("finished"))
    finishes = module.params["state"] == "finished"
    changed = not done and (finishes or not begun)
    if finishes and not done:
        mark.update(finished=now.isoformat(), restored=module.params["restored"])
    elif not begun:
        mark = {"from": wanted, "started": now.isoformat(), "finished": None, "restored": []}
    if changed and not module.check_mode:
        rebuild.write_mark(mark)
    words = (
        f"was rebuilt from {wanted} already, on {mark.get('finished')}; nothing is restored again"
        if done
        else (
            f"goes on being rebuilt from {wanted}, since {mark.get('started')}"
            if begun
            else f"is bare, and {'would be' if module.check_mode else 'is'} rebuilt from {wanted}"
        )
    )
    module.exit_json(
        changed=changed,
        under_way=not done and not finishes,
        wanted=wanted,
        server_restored=os.path.exists(rebuild.SERVER_RESTORED),
        summary=f"This droplet {words}.",
    )


if __name__ == "__main__":
    main()
