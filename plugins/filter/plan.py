"""Filters that turn `apps` into the roles' inputs: the one place where the plan meets Ansible."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_replication as replication
from ansible_collections.shipshape.droplet.plugins.plugin_utils import plan as model
from ansible_collections.shipshape.droplet.plugins.plugin_utils import plan_apps as apps_model
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_common import PlanError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_pgbouncer import PGBOUNCER_PORT
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology, UnknownPrimary, elect


def topology(groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> Topology:
    """The topology as the inventory has it. Addresses are read only when there is more than one machine."""
    members = {name: tuple(groups.get(name, ())) for name in ("proxy", "app", "database")}
    machines = dict.fromkeys(host for hosts in members.values() for host in hosts)
    addresses: dict[str, str] = {}
    if len(machines) > 1:
        for host in machines:
            variables = hostvars[host]
            addresses[host] = str(variables.get("private_address") or variables.get("ansible_host") or host)
    primary, promotions = elect(records(members["database"], hostvars), members["database"])
    return Topology(**members, addresses=addresses, primary=primary, promotions=promotions)


def records(members: Sequence[str], hostvars: Mapping[str, Any]) -> dict[str, str]:
    """What each database host has noted of who is the primary, as far as this run has asked them.

    Raises UnknownPrimary when it has asked, and none of several has answered: to take the first then might undo a
    promotion.
    """
    if len(members) < 2:
        return {host: _said(hostvars[host]).get("primary") or "" for host in members}
    notes: dict[str, list[str]] = {host: [] for host in members}
    asked = False
    for name in hostvars:
        said = _said(hostvars[name])
        answers = {**(said.get("others") or {}), **({name: said.get("primary")} if said else {})}
        for host in notes.keys() & answers.keys():
            asked = True
            notes[host] += [] if answers[host] is None else [str(answers[host])]
    if asked and not any(notes.values()):
        raise UnknownPrimary(
            f"none of the database hosts ({', '.join(members)}) has said who is the primary: they do not answer, or do "
            "not let an admin become root without a password. Nothing is decided without one of them"
        )
    # A promotion may have been between two logins of the same run.
    return {host: max(found, key=_promotions) for host, found in notes.items() if found}


def _said(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    login = variables.get("shipshape_login")
    return login if isinstance(login, Mapping) else {}


def _promotions(note: str) -> int:
    number = note.rpartition(" ")[2]
    return int(number) if number.isdigit() else 0


def database_primary(groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> str:
    """The host that has the databases; empty where no host has any."""
    try:
        return str(topology(groups, hostvars).primary)
    except UnknownPrimary as error:
        raise AnsibleFilterError(str(error)) from error


def pooler_port(groups: Mapping[str, Any], hostvars: Mapping[str, Any]) -> int:
    """Where PgBouncer listens, which apps on other hosts need to know, too."""
    for host in groups.get("database", ()):
        if port := hostvars[host].get("pgbouncer_port"):
            return int(port)
    return int(PGBOUNCER_PORT)


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
    except (PlanError, UnknownPrimary) as error:
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
        planned: list[dict[str, Any]] = apps_model.plan_apps(
            apps, known, host, passwords, only, pooler, redis(hostvars, host)
        )
        return planned
    except (PlanError, UnknownPrimary) as error:
        raise AnsibleFilterError(str(error)) from error


def replica_to_promote(groups: Mapping[str, Any], hostvars: Mapping[str, Any], wish: str = "") -> dict[str, Any]:
    """{primary, to, others, record}: who has the databases, who shall have them, which further replicas there are, and
    what is noted then; or `problem`.
    """
    try:
        known = topology(groups, hostvars)
    except UnknownPrimary as error:
        return {"primary": "", "to": "", "others": [], "record": "", "problem": str(error)}
    replicas = [host for host in known.database if host != known.primary]
    to = wish or (replicas[0] if len(replicas) == 1 else "")
    found = {
        "primary": known.primary,
        "to": to,
        "others": [host for host in replicas if host != to],
        "record": f"{to} {known.promotions + 1}",
        "problem": "",
    }
    if not replicas:
        found["problem"] = (
            f"Group `database` has {', '.join(known.database) or 'no host'}: there is no replica to promote. "
            "Put a second droplet into it and run site.yml."
        )
    elif not to:
        found["problem"] = f"Say which replica is to be the primary: -e to={' or -e to='.join(replicas)}"
    elif to == known.primary:
        found["problem"] = (
            f"{to} is the primary already (playbooks/deploy.yml leads the apps to it); "
            f"the replicas are: {', '.join(replicas)}"
        )
    elif to not in replicas:
        found["problem"] = f"-e to={to}: no host of group `database`; the replicas are: {', '.join(replicas)}"
    return found


def promotion_refusal(
    hostvars: Mapping[str, Any], promotion: Mapping[str, Any], limit: int, accept_loss: bool = False
) -> str:
    """Why a replica must not be promoted, from what all database hosts say of themselves; nothing when it may.

    `promotion` is what `replica_to_promote` says. `limit` is in bytes of the write-ahead log, and of no account with
    `accept_loss`.
    """
    name, to = str(promotion["primary"]), str(promotion["to"])
    looked = {host: _looked(hostvars[host]) for host in (name, to, *promotion["others"])}
    primary, replica = looked[name], looked[to]
    if not replica.get("answers"):
        return f"PostgreSQL on {to} does not answer. Nothing was changed; `pg_lsclusters` there says more."
    if accept_loss or not replica.get("recovering"):
        return ""  # the latter is of a promotion that was cut off after that
    has = str(replica["position"] or "0/0")
    written = str(primary.get("position") or "") if not primary.get("recovering") else ""
    lag = replication.behind(written, has)
    if lag is not None:
        connected = replication.identifier(to) in primary.get("replicas", ())
        return str(replication.refusal(lag, int(limit), name, to, connected))
    others = {host: looked[host] for host in promotion["others"]}
    ahead = replication.further(has, {host: str(said.get("position") or "") for host, said in others.items()})
    silent = [host for host, said in others.items() if not said.get("answers")]
    return str(replication.refusal_of_unknown(replica.get("age"), name, to, ahead, silent))


def _looked(variables: Mapping[str, Any]) -> Mapping[str, Any]:
    looked = variables.get("shipshape_looked")
    return looked if isinstance(looked, Mapping) else {}


def promotion_replicas(promotion: Mapping[str, Any], present: Sequence[str]) -> str:
    """Which replicas the new primary has until the old one is one, in words; `present` are the hosts of the run."""
    here = [host for host in promotion["others"] if host in present]
    away = [host for host in promotion["others"] if host not in present]
    words = (
        f"{promotion['to']} has no replica" if not here else f"only {' and '.join(here)} will follow {promotion['to']}"
    )
    return words + (f" ({' and '.join(away)} could not be reached)" if away else "")


def promotion_lag(primary: Mapping[str, Any], replica: Mapping[str, Any]) -> str:
    """How far behind the replica was, in words."""
    lag = replication.behind(str(primary.get("position") or ""), str(replica.get("position") or "0/0"))
    if lag is None:
        age = replica.get("age")
        last = f"; its last transaction was {age:.0f} s old" if age is not None else ""
        return f"how far behind it was could not be asked{last}"
    return f"it was {lag} bytes behind"


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "plan": plan,
            "plan_apps": plan_apps,
            "database_primary": database_primary,
            "replica_to_promote": replica_to_promote,
            "promotion_refusal": promotion_refusal,
            "promotion_lag": promotion_lag,
            "promotion_replicas": promotion_replicas,
        }
