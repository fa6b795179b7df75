"""The ports that are meant to be open: the declaration that `playbooks/verify.yml` judges by, seen by a stranger."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.plugin_utils.declared_ports import Port, declared, reachable
from plugins.plugin_utils.plan import plan
from plugins.plugin_utils.topology import Topology


def ports(inventory: Mapping[str, Any], host: str, ssh_port: int) -> set[Port]:
    """Those that everybody may reach; a rule for listed sources does not open a port to a stranger."""
    groups = inventory["all"]["children"]
    proxy, app, database = (tuple(groups[group]["hosts"]) for group in ("proxy", "app", "database"))
    planned = plan(inventory["all"]["vars"]["apps"], Topology(proxy, app, database), host)
    return reachable(declared([{"name": "ssh", "port": ssh_port}], planned["listens"]))
