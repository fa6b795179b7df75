"""How much of the system each service could reach that Shipshape writes, as `systemd-analyze security` counts it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from tests.lab import settings

#: 0 is a service that can do nothing, 10 one that can do everything.
AT_MOST = 3.0
#: What cannot be shut in by its nature, and why.
EXCUSED = {
    "shipshape-way-in-revert.service": "puts files, accounts, firewall and services back, wherever they are",
    "shipshape-hidepid.service": "changes a mount for all; in a sandbox it would have mounts of its own",
}
ROLES = settings.PROJECT / "roles"
NAMED = re.compile(r"/etc/systemd/system/(shipshape-[a-z-]+\.service)\b")


def named() -> set[str]:
    """Every service that a role names by its path, also those that no container has."""
    files = [path for path in ROLES.rglob("*") if path.suffix in (".yml", ".py", ".j2")]
    return {name for path in files for name in NAMED.findall(path.read_text(encoding="utf-8"))} | {
        path.name for path in ROLES.glob("*/files/*.service")
    }


def text_of(name: str) -> str:
    """A service's text in the repository; nothing when it is in no file of its own."""
    found = [*ROLES.glob(f"*/files/{name}"), *ROLES.glob(f"*/templates/{name.removeprefix('shipshape-')}.j2")]
    # The only variable of such a template is a size, in its command.
    return found[0].read_text(encoding="utf-8").replace("{{", "").replace("}}", "") if found else ""


def exposure(console: Callable[[str], str], name: str) -> float:
    """The figure of a unit that systemd knows on a droplet."""
    said = console(f"systemd-analyze security --no-pager {name} | tail -n 1")
    match = re.search(r"exposure level for \S+: ([\d.]+)", said)
    assert match, said
    return float(match[1])


def own_services(console: Callable[[str], str]) -> list[str]:
    """Services whose whole file on a droplet is ours, those of apps among them."""
    found = console("grep --files-with-matches --null 'by Shipshape' /etc/systemd/system/*.service | xargs -0 -n1 echo")
    return sorted(Path(line).name for line in found.splitlines())


def too_open(console: Callable[[str], str]) -> dict[str, float]:
    """Services that are neither shut in nor excused: those of the droplet, and those it is not the host for."""
    there = own_services(console)
    foreign = sorted(named() - set(there) - set(EXCUSED))
    for name in foreign:
        assert text_of(name), f"{name} stands in no file of its own, so nobody can measure it"
        console(f"cat >/run/systemd/system/{name} <<'UNIT'\n{text_of(name)}\nUNIT")
    console("systemctl daemon-reload")
    figures = {name: exposure(console, name) for name in {*there, *foreign} - set(EXCUSED)}
    console("; ".join([f"rm /run/systemd/system/{name}" for name in foreign] + ["systemctl daemon-reload"]))
    return {name: figure for name, figure in figures.items() if figure > AT_MOST}
