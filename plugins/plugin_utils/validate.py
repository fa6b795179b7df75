"""The validation of a whole inventory: every problem at once, none of them found by trying."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from .across import check_apps, check_globals
from .fields import GLOBALS
from .hosts import check_hosts
from .problems import Path, Problem
from .rolevars import Roles, check_names, check_values, mistyped_global
from .schema import Table, compare

Variables = Mapping[str, Any]


@dataclass(frozen=True)
class Inventory:
    """What the user wrote: each host's variables with templates worked out, the groups, and what the roles know."""

    hosts: Mapping[str, Variables]
    groups: Mapping[str, Sequence[str]]
    roles: Roles = field(default_factory=dict)


def problems(inventory: Inventory, origin: Callable[[str, Path], str] = lambda _host, _path: "") -> list[Problem]:
    """Everything wrong with an inventory, in the order of its paths.

    A problem that all hosts share is named once, without hosts. `origin` says where in which file a path stands.
    """
    found: dict[Problem, list[str]] = {}
    for host, variables in inventory.hosts.items():
        for problem in _of_host(variables, inventory):
            found.setdefault(problem, []).append(host)
    shared = [
        replace(
            problem,
            hosts=() if len(hosts) == len(inventory.hosts) else tuple(hosts),
            origin=origin(hosts[0], problem.path),
        )
        for problem, hosts in found.items()
    ]
    own = [
        replace(problem, origin=origin(problem.hosts[0] if problem.hosts else "", problem.path))
        for problem in check_hosts(inventory.hosts, inventory.groups)
    ]
    return sorted(shared + own, key=_order)


def _of_host(variables: Variables, inventory: Inventory) -> Iterator[Problem]:
    written = {name: variables[name] for name in GLOBALS if name in variables}
    mistyped = {mistyped_global(name) for name in variables}
    for problem in [*compare(Table(GLOBALS, "the globals"), written, ()), *check_globals(variables)]:
        # A global that is only mistyped is reported as that, once.
        if not (problem.found == "nothing" and problem.path[0] in mistyped):
            yield problem
    yield from check_names(list(variables), inventory.roles)
    yield from check_values(variables, inventory.roles)
    yield from check_apps(variables, inventory.groups)


def _order(problem: Problem) -> tuple[list[tuple[int, str]], tuple[str, ...]]:
    steps = [(step, "") if isinstance(step, int) else (0, step) for step in problem.path]
    return steps, problem.hosts
