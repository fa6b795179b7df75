"""What a role's variable may be beyond its type: bounds, addresses, names that a droplet would refuse too late."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import zoneinfo

from .checks import secret_https_url
from .problems import Fault, Path, Problem, describe, meant, quoted
from .schema import Check

Values = Callable[[Any, Path], Iterator[Problem]]

#: Services that were never meant to be reached by strangers.
PRIVATE_PORTS = {2375: "Docker", 2376: "Docker", 5432: "PostgreSQL", 6379: "Redis", 6432: "PgBouncer", 27017: "MongoDB"}
SYSCTL_NAME = re.compile(r"[a-z0-9_]+([./][A-Za-z0-9_*-]+)+")


def between(low: int, high: int, unit: str) -> Check:
    """A whole number within bounds."""

    def check(value: Any) -> Fault | None:
        if low <= int(value) <= high:
            return None
        return Fault(describe(value), f"a whole number of {unit} from {low} to {high}")

    return check


port = between(1, 65535, "a port,")


def network(value: Any) -> Fault | None:
    """An address or a network."""
    text = str(value)
    try:
        ipaddress.ip_network(text)
    except ValueError:
        wanted = "an address such as 203.0.113.7 or a network such as 10.0.0.0/8"
        try:
            found = ipaddress.ip_network(text, strict=False)
        except ValueError:
            return Fault(quoted(text), wanted)
        return Fault(f"{text}, an address with a network's mask", f"the network {found}, or the address alone")
    return None


def secret_url(value: Any) -> Fault | None:
    """An https URL that is not shown, or none."""
    return secret_https_url(str(value)) if value else None


def timezone(value: Any) -> Fault | None:
    """A name of the time zone database, where this machine has it."""
    known = zoneinfo.available_timezones()
    if not known or str(value) in known:
        return None
    by_city = {name.rpartition("/")[2].lower(): name for name in sorted(known)}
    guess = by_city.get(str(value).lower().replace(" ", "_")) or meant(
        str(value), {name.lower(): name for name in known}
    )
    names = {name.lower(): name for name in known}
    question = f"did you mean {names.get(guess.lower(), guess)}? " if guess else ""
    return Fault(quoted(str(value)), f"{question}A name such as Europe/Berlin or Etc/UTC")


def one(check: Check) -> Values:
    """The variable as a whole."""

    def values(value: Any, path: Path) -> Iterator[Problem]:
        if fault := check(value):
            yield Problem(path, fault.found, fault.wanted)

    return values


def each(check: Check) -> Values:
    """Every element of a list."""

    def values(value: Any, path: Path) -> Iterator[Problem]:
        for index, element in enumerate(value):
            yield from one(check)(element, (*path, index))

    return values


def firewall_rules(rules: Sequence[Mapping[str, Any]], path: Path) -> Iterator[Problem]:
    """Ports with whom they are for."""
    seen: dict[tuple[int, str], int] = {}
    for index, rule in enumerate(rules):
        here = (*path, index)
        yield from one(port)(rule["port"], (*here, "port"))
        yield from each(network)(rule.get("sources") or [], (*here, "sources"))
        if not str(rule["name"]).isprintable() or not str(rule["name"]).strip() or "'" in str(rule["name"]):
            yield Problem(
                (*here, "name"), quoted(str(rule["name"])), "a word for whom the port belongs to; ufw shows it"
            )
        number, protocol = int(rule["port"]), str(rule.get("protocol", "tcp"))
        if (first := seen.setdefault((number, protocol), index)) != index:
            yield Problem(
                (*here, "port"),
                f"{number}/{protocol}, which {path[0]}[{first}] names too",
                "each port once, with the sources of both",
            )
        if number in PRIVATE_PORTS and not rule.get("sources"):
            yield Problem(
                (*here, "sources"),
                f"nothing, which opens {PRIVATE_PORTS[number]} to the world",
                'the addresses that may connect; ["0.0.0.0/0", "::/0"] if it is really meant for everybody',
            )


def sysctl(settings: Mapping[Any, Any], path: Path) -> Iterator[Problem]:
    """Kernel settings by name."""
    for name, value in settings.items():
        if not SYSCTL_NAME.fullmatch(str(name)):
            yield Problem((*path, str(name)), "which is no kernel setting", "a name such as net.core.somaxconn")
        elif isinstance(value, bool):
            number = int(value)
            yield Problem((*path, str(name)), describe(value), f"the number the kernel knows, {number}")
        elif not isinstance(value, (int, str)) or value == "":
            yield Problem((*path, str(name)), describe(value), "a number or a text")


CHECKS: dict[str, Values] = {
    "pgbouncer_port": one(port),
    "pgbouncer_max_client_conn": one(between(10, 50000, "connections")),
    "pgbouncer_reserve_pool_size": one(between(0, 100, "connections")),
    "hardening_ssh_port": one(port),
    "hardening_ssh_sources": each(network),
    # Sooner, a slow droplet takes back what was right; later, nobody waits for it to let them in again.
    "hardening_revert_seconds": one(between(10, 600, "seconds")),
    "hardening_firewall_rules": firewall_rules,
    "hardening_timezone": one(timezone),
    "hardening_fail2ban_max_retry": one(between(1, 100, "attempts")),
    "hardening_fail2ban_ban_seconds": one(between(60, 604800, "seconds")),
    "hardening_fail2ban_ignore": each(network),
    "hardening_updates_webhook": one(secret_url),
    "hardening_journal_max_mb": one(between(16, 65536, "MB")),
    "hardening_swap_mb": one(between(0, 65536, "MB")),
    "hardening_sysctl": sysctl,
}


def check_bounds(name: str, value: Any) -> Iterator[Problem]:
    """What is wrong with a variable whose type is right."""
    if name in CHECKS:
        yield from CHECKS[name](value, (name,))
