"""Checks of the hosts and groups: how each host is reached, and whether all see the same apps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..module_utils.postgresql_replication import identifier
from .across import apps_of, mistyped_groups, port_of
from .checks import PLACEHOLDER, example_address, example_domain
from .names import is_address
from .problems import Problem, Unresolved, describe, quoted
from .topology import GROUPS

# Connections that need no address: they reach a host by its name or are on it already.
BY_NAME = {"local", "docker", "podman", "community.docker.docker", "containers.podman.podman"}
ADDRESS = "the droplet's address, as your provider shows it"
PRIVATE = "an IP address of this host that the others reach: firewalls and PostgreSQL take no names"


def check_hosts(hosts: Mapping[str, Mapping[str, Any]], groups: Mapping[str, Sequence[str]]) -> list[Problem]:
    """Every problem of the topology."""
    machines = list(dict.fromkeys(host for group in GROUPS for host in groups.get(group, ())))
    return [
        *_groups(groups, machines),
        *(problem for host, variables in hosts.items() for problem in _address(host, variables)),
        *_private(hosts, machines),
        *_twins(hosts),
        *_same_apps(hosts, machines),
        *_replicas(hosts, groups.get("database", ())),
    ]


def _replicas(hosts: Mapping[str, Mapping[str, Any]], servers: Sequence[str]) -> Iterator[Problem]:
    """What is asked of replicas, where there are some, and that their slots have names of their own."""
    seen: dict[str, str] = {}
    for host in servers:
        if len(servers) == 1 and str(hosts.get(host, {}).get("postgresql_synchronous", False)).lower() in (
            "true",
            "yes",
        ):
            wanted = "a second droplet in group `database`, or no such variable: there is no replica to wait for"
            yield Problem(("postgresql_synchronous",), "true, and one host in group `database`", wanted)
        name = identifier(host)
        if name in seen:
            wanted = "names that differ in letters or digits: a replication slot has no other characters"
            yield Problem(("group database",), f"{seen[name]} and {host}", wanted)
        seen.setdefault(name, host)


def _groups(groups: Mapping[str, Sequence[str]], machines: Sequence[str]) -> Iterator[Problem]:
    mistyped = mistyped_groups(groups)
    for guess, name in mistyped.items():
        yield Problem((f"group {name}",), "a group that is not known", f"did you mean `{guess}`?")
    if not machines and not mistyped:
        wanted = "at least one host; a single droplet belongs into all three"
        yield Problem(("groups proxy, app, database",), "no host in any of them", wanted)


def _address(host: str, variables: Mapping[str, Any]) -> Iterator[Problem]:
    address = variables.get("ansible_host")
    if address is None:
        by_name = variables.get("ansible_connection") in BY_NAME
        if not by_name and not is_address(host) and "." not in host:
            yield Problem(("ansible_host",), "nothing", ADDRESS, (host,))
    elif isinstance(address, Unresolved):
        yield Problem(("ansible_host",), address.reason, ADDRESS, (host,))
    elif not isinstance(address, str) or not address:
        yield Problem(("ansible_host",), describe(address), ADDRESS, (host,))
    elif PLACEHOLDER.search(address):
        yield Problem(("ansible_host",), "a placeholder", ADDRESS, (host,))
    elif example_address(address) or example_domain(address):
        yield Problem(("ansible_host",), f"{address}, reserved for documentation", ADDRESS, (host,))
    elif not is_address(address) and any(sign in address for sign in " /@"):
        yield Problem(("ansible_host",), quoted(address), f"{ADDRESS}, without user or port", (host,))


def _private(hosts: Mapping[str, Mapping[str, Any]], machines: Sequence[str]) -> Iterator[Problem]:
    """Between machines, addresses go into firewall rules and pg_hba.conf, and must be addresses."""
    for host in machines:
        variables = hosts.get(host, {})
        private = variables.get("private_address")
        if isinstance(private, str) and example_address(private):
            yield Problem(("private_address",), f"{private}, reserved for documentation", PRIVATE, (host,))
        elif isinstance(private, str) and not is_address(private):
            yield Problem(("private_address",), quoted(private), PRIVATE, (host,))
        elif private is None and len(machines) > 1 and not is_address(str(variables.get("ansible_host", host))):
            yield Problem(
                ("private_address",), f"nothing, and {_reached(host, variables)} is no IP address", PRIVATE, (host,)
            )


def _reached(host: str, variables: Mapping[str, Any]) -> str:
    address = variables.get("ansible_host")
    return f"`ansible_host` {quoted(address)}" if isinstance(address, str) else f"the name {host}"


def _twins(hosts: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    seen: dict[tuple[str, str], str] = {}
    for host, variables in hosts.items():
        address = variables.get("ansible_host")
        if not isinstance(address, str) or variables.get("ansible_connection") in BY_NAME:
            continue
        place = (address, str(variables.get("ansible_port", 22)))
        if place in seen:
            wanted = f"one name for one machine: put {seen[place]} into several groups instead"
            yield Problem(("ansible_host",), f"{address}, the address of {seen[place]}, too", wanted, (host,))
        seen.setdefault(place, host)


def _same_apps(hosts: Mapping[str, Mapping[str, Any]], machines: Sequence[str]) -> Iterator[Problem]:
    """What one host runs, another one serves and a third stores: they must read the same."""
    views = {host: _view(hosts[host]) for host in machines if host in hosts}
    first = next(iter(views), "")
    for host, view in views.items():
        if view != views[first]:
            found = f"other apps than on {first}, or the same with other domains, ports or databases"
            yield Problem(("apps",), found, "the same for all hosts: in group_vars/all", (host,))


def _view(variables: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: (app.get("type"), port_of(name, app), str(app.get("domains")), str(app.get("database")))
        for name, app in apps_of(variables).items()
    }
