"""The ports: the packet filter's rules in force, the chain of forwarded ports, listening sockets, and the probe."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from .declared_ports import ANY, Declared, Port, is_loopback, reachable, text
from .docker_firewall import CHAIN, sources
from .docker_firewall import rules as docker_rules
from .verify_finding import Finding, failure, output

State = Mapping[str, Any]
Rules = Sequence[Mapping[str, Any]]
_DECLARE = "or declare it in `hardening_firewall_rules`"
#: Runs delete no rule that they have not made.
_DELETE = f"`ufw status numbered` and `ufw delete NUMBER` take it away; {_DECLARE}"
_ACCEPT = re.compile(
    r"^(?:-s (?P<source>\S+) )?(?:-d \S+ )?-p (?P<protocol>tcp|udp) -m (?:tcp|udp) --dport (?P<port>\d+) -j ACCEPT$"
)
_SOCKET = re.compile(
    r"^(?P<protocol>tcp|udp)\s+\S+\s+\d+\s+\d+\s+(?P<address>\S+):(?P<port>\d+)\s+\S+\s*(?P<users>.*)$"
)
#: A machine asks for its own address on these; they take answers only.
_DHCP = {("udp", 68), ("udp", 546)}


def chain(listing: str, name: str) -> list[str]:
    """The rules of one chain as `iptables -S` has them."""
    prefix = f"-A {name} "
    return [line.removeprefix(prefix).strip() for line in listing.splitlines() if line.startswith(prefix)]


def _program(version: int) -> str:
    return "iptables" if version == 4 else "ip6tables"


def firewall(state: State, rules: Rules, version: int) -> Iterator[Finding]:
    """ufw in force: its policy, its chains, and exactly the declared ports in them."""
    where = f"firewall (IPv{version})"
    listing = output(state, _program(version))
    if listing is None:
        yield Finding(where, failure(state, _program(version)), "ufw, active")
        return
    ours = "ufw-user-input" if version == 4 else "ufw6-user-input"
    before = ours.replace("user", "before")
    entry = chain(listing, "INPUT")
    if f"-N {ours}" not in listing.splitlines() or f"-j {before}" not in entry:
        yield Finding(where, "ufw is not active: its chains are not in force", "active", "`ufw enable`, or run again")
        return
    if "-P INPUT DROP" not in listing.splitlines():
        policy = next((line for line in listing.splitlines() if line.startswith("-P INPUT")), "no policy")
        yield Finding(where, f"`{policy}`", "-P INPUT DROP", "`ufw default deny incoming`, or run again")
    for rule in entry:
        if rule.endswith("-j ACCEPT"):
            yield Finding(
                where,
                f"`-A INPUT {rule}`, past ufw",
                "no such rule",
                f"`{_program(version)} -D INPUT {rule}`, {_DECLARE}",
            )
    wanted = {
        (str(rule.get("protocol") or "tcp"), int(rule["port"]), source)
        for rule in rules
        for source in sources(rule, version)
    }
    found = set()
    for rule in chain(listing, ours):
        if match := _ACCEPT.match(rule):
            source = match["source"] or ""
            found.add((match["protocol"], int(match["port"]), "" if source in ("0.0.0.0/0", "::/0") else source))
        elif not rule.endswith(("-j DROP", "-j REJECT")):
            yield Finding(where, f"`-A {ours} {rule}`", "no such rule", _DELETE)
    for protocol, port, source in sorted(found - wanted):
        whom = source or "everybody"
        yield Finding(where, f"{port}/{protocol} open for {whom}", "nobody declares that port for them", _DELETE)
    for protocol, port, source in sorted(wanted - found):
        name = next(rule["name"] for rule in rules if int(rule["port"]) == port)
        yield Finding(
            where,
            f"{port}/{protocol} closed for {source or 'everybody'}",
            f"open, for {name}",
            "Run the playbook again",
        )


def forwarding(state: State, published: Rules, version: int) -> Iterator[Finding]:
    """The chain that decides which ports of containers the outside reaches."""
    where = f"ports of containers (IPv{version})"
    listing = output(state, _program(version))
    if listing is None:
        return  # said already
    hint = "`systemctl reload shipshape-docker-firewall`"
    if chain(listing, "DOCKER-USER")[:1] != [f"-j {CHAIN}"]:
        first = next(iter(chain(listing, "DOCKER-USER")), "nothing")
        yield Finding(where, f"DOCKER-USER begins with `{first}`", f"-j {CHAIN}", hint)
    jump = "-j DOCKER-USER"
    if version == 6:
        # Docker puts rules of its own before that jump; ours decides in a table where it has none.
        listing, jump = output(state, "ip6tables mangle") or "", f"-j {CHAIN}"
    # Docker's isolation of its networks, which lets nothing pass by itself, may come before.
    forward = [rule for rule in chain(listing, "FORWARD") if not rule.startswith("-j DOCKER-ISOLATION-STAGE-")]
    if forward[:1] != [jump]:
        first = next(iter(forward), "nothing")
        yield Finding(where, f"FORWARD begins with `{first}`", jump, hint)
    found, wanted = chain(listing, CHAIN), docker_rules(published, version)
    for rule in wanted:
        if rule not in found:
            yield Finding(where, f"{CHAIN} without `{rule}`", "that rule", hint)
    for rule in found:
        if rule not in wanted:
            yield Finding(where, f"`-A {CHAIN} {rule}`", "no such rule", hint)
    if sorted(found) == sorted(wanted) and found != wanted:
        yield Finding(where, f"the rules of {CHAIN} in another order", " then ".join(wanted), hint)


def sockets(state: State, ports: Sequence[Declared]) -> Iterator[Finding]:
    """What listens beyond the loopback, and where."""
    listing = output(state, "sockets")
    if listing is None:
        yield Finding("listening sockets", failure(state, "sockets"), "a list of them")
        return
    seen: set[tuple[str, str, int, str]] = set()
    for line in listing.splitlines():
        match = _SOCKET.match(line.strip())
        if not match:
            continue
        address = match["address"].strip("[]").partition("%")[0]
        key: Port = (match["protocol"], int(match["port"]))
        if is_loopback(address) or key in _DHCP:
            continue
        wanted = [port for port in ports if port.key == key]
        everywhere = address in ("0.0.0.0", "::", ANY)
        if any(ANY in port.addresses or (address in port.addresses and not everywhere) for port in wanted):
            continue
        who = ", ".join(dict.fromkeys(re.findall(r'\("([^"]+)"', match["users"]))) or "a process of the kernel's"
        if (who, address, *key[1:], key[0]) in seen:
            continue
        seen.add((who, address, *key[1:], key[0]))
        at = f"[{address}]" if ":" in address else address
        if wanted:
            where = " and ".join(wanted[0].addresses)
            yield Finding(
                "listening sockets",
                f"{who} on {at}:{key[1]}/{key[0]}",
                f"{wanted[0].name} listens on {where} only, {wanted[0].audience}",
                "Bind it to that address",
            )
        else:
            yield Finding(
                "listening sockets",
                f"{who} on {at}:{key[1]}/{key[0]}",
                "nobody declares that port",
                f"Stop it, bind it to 127.0.0.1, {_DECLARE}",
            )


def probe(address: str, opened: Iterable[Port], ports: Sequence[Declared], callers: Iterable[str]) -> Iterator[Finding]:
    """What answers from outside and is not meant for whoever asks."""
    allowed = reachable(ports, callers)
    for port in sorted(set(opened) - allowed):
        owner = next((one for one in ports if one.key == port), None)
        declared = f"{owner.name} is {owner.audience}" if owner else "nobody declares that port"
        yield Finding(
            f"probe of {address}",
            f"{text(port)} open from here",
            declared,
            f"A container may have published it: see `docker ps`; {_DECLARE}",
        )
