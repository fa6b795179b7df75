"""The ports that are meant to be open: what follows from the apps, and the way in."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from plugins.plugin_utils.plan import plan
from plugins.plugin_utils.topology import Topology
from tests.audit.probe import Port


def ports(inventory: Mapping[str, Any], host: str, ssh_port: int) -> set[Port]:
    """Those that everybody may reach; a rule for listed sources does not open a port to a stranger."""
    groups = inventory["all"]["children"]
    proxy, app, database = (tuple(groups[group]["hosts"]) for group in ("proxy", "app", "database"))
    topology = Topology(proxy, app, database)
    rules = plan(inventory["all"]["vars"]["apps"], topology, host)["hardening_contributed_firewall_rules"]
    return {("tcp", ssh_port)} | {
        (str(rule.get("protocol", "tcp")), int(rule["port"])) for rule in rules if not rule.get("sources")
    }
