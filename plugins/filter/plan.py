"""Filters that turn `apps` into the roles' inputs: the one place where the plan meets Ansible."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.plugin_utils import plan as model
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology


def topology(groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> Topology:
    """The topology as the inventory has it. Addresses are read only when there is more than one machine."""
    members = {name: tuple(groups.get(name, ())) for name in ("proxy", "app", "database")}
    machines = dict.fromkeys(host for hosts in members.values() for host in hosts)
    addresses: dict[str, str] = {}
    if len(machines) > 1:
        for host in machines:
            variables = hostvars[host]
            addresses[host] = str(variables.get("private_address") or variables.get("ansible_host") or host)
    return Topology(**members, addresses=addresses)


def pooler_port(groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> int:
    """Where PgBouncer listens, which apps on other hosts need to know, too."""
    for host in groups.get("database", ()):
        if port := hostvars[host].get("pgbouncer_port"):
            return int(port)
    return int(model.PGBOUNCER_PORT)


def redis(hostvars: Mapping[str, Any], host: str) -> Mapping[str, Any]:
    """The instances of Redis that the inventory names."""
    return hostvars[host].get("redis") or {}


def plan(apps: Mapping[str, Any], groups: Mapping[str, Any], hostvars: Mapping[str, Any], host: str) -> dict[str, Any]:
    """Each role's input on one host."""
    try:
        proxy = str(hostvars[host].get("proxy") or "nginx")
        http3 = bool(hostvars[host].get("http3"))
        pooler = pooler_port(groups, hostvars)
        planned: dict[str, Any] = model.plan(
            apps, topology(groups, hostvars), host, proxy, http3, pooler, redis(hostvars, host)
        )
        return planned
    except model.PlanError as error:
        raise AnsibleFilterError(str(error)) from error


def plan_apps(
    apps: Mapping[str, Any],
    groups: Mapping[str, Any],
    hostvars: Mapping[str, Any],
    host: str,
    passwords: Mapping[str, str] | None = None,
    only: str = "",
) -> list[dict[str, Any]]:
    """The apps to deploy on one host."""
    try:
        known = topology(groups, hostvars)
        pooler = pooler_port(groups, hostvars)
        planned: list[dict[str, Any]] = model.plan_apps(
            apps, known, host, passwords, only, pooler, redis(hostvars, host)
        )
        return planned
    except model.PlanError as error:
        raise AnsibleFilterError(str(error)) from error


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"plan": plan, "plan_apps": plan_apps}
