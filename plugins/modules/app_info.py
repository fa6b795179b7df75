#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: app_info
short_description: List the releases of apps
version_added: 0.1.0
description: For all apps of a host in one trip. Shows no environment.
options:
  apps:
    description: The apps, as the filter C(shipshape.droplet.app_specs) makes them.
    type: list
    elements: dict
    required: true
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Releases | Read them
  shipshape.droplet.app_info:
    apps: "{{ (app_list | shipshape.droplet.app_specs).values() | list }}"
"""

RETURN = r"""
apps:
  description: For each app by name its releases, newest first (id, version, commit, created, by, activated, state).
  type: dict
  returned: success
table:
  description: The same as lines of text.
  type: list
  elements: str
  returned: success
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import app_service
from ansible_collections.shipshape.droplet.plugins.module_utils.app_arguments import app_options, execute
from ansible_collections.shipshape.droplet.plugins.module_utils.app_git import FULL_COMMIT
from ansible_collections.shipshape.droplet.plugins.module_utils.app_store import Store
from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import PROCESS_TYPES

SHOWN = ("version", "commit", "created", "by", "activated", "rolled_back")


def releases_of(app: dict[str, Any], store: Store) -> list[dict[str, str]]:
    previous = store.previous()
    rows = []
    for release in reversed(store.releases()):
        row = {key: str(release.record.get(key) or "") for key in SHOWN}
        state = "previous" if previous and release.id == previous.id else store.state(release)
        rows.append(dict(row, id=release.id, state=state))
    return rows


def shown_version(version: str) -> str:
    """A commit or a digest cut short, anything else as it is."""
    if FULL_COMMIT.fullmatch(version):
        return version[:7]
    tag, _, digest = version.rpartition("@")
    return tag or digest[:14] if digest.startswith("sha256:") else version


def as_table(name: str, rows: list[dict[str, str]], service: str) -> list[str]:
    lines = [name + (f" ({service})" if service else "")]
    for row in rows:
        version = shown_version(row["version"])
        lines.append(f"  {row['id']:24}  {version:12}  {row['created']:20}  {row['state']:11}  {row['by']}".rstrip())
    return lines if rows else [*lines, "  no release yet"]


def work(module: AnsibleModule) -> dict[str, Any]:
    apps: list[dict[str, Any]] = module.params["apps"]
    stores = {app["name"]: Store(app["name"], app["directory"]) for app in apps}
    states = app_service.show([stores[app["name"]].live_unit for app in apps if app["type"] in PROCESS_TYPES])
    found: dict[str, list[dict[str, str]]] = {}
    table: list[str] = []
    for app in apps:
        store = stores[app["name"]]
        found[app["name"]] = releases_of(app, store)
        state = states.get(store.live_unit, {}).get("ActiveState", "")
        table += as_table(app["name"], found[app["name"]], f"{store.live_unit} is {state}" if state else "")
    return {"changed": False, "apps": found, "table": table}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(apps=dict(type="list", elements="dict", required=True, options=app_options())),
        supports_check_mode=True,
    )
    execute(module, work, "releases")


if __name__ == "__main__":
    main()
