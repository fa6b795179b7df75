"""The probe: every TCP port and the common UDP ones from outside, against what is declared."""

from __future__ import annotations

import subprocess
from collections.abc import Collection
from pathlib import Path
from xml.etree import ElementTree

from plugins.plugin_utils.declared_ports import Port, text
from tests.audit.model import AuditError, Finding, Result
from tests.audit.target import Target
from tests.lab.host import ensure_program, privileged

NAME = "probe"
# The wire is a bridge on this machine and loses nothing: one repetition, and no courtesy towards routers.
SCANS = {
    "tcp": ("-sS", "-p-", "--max-retries=1", "--min-rate=8000"),
    "udp": ("-sU", "--top-ports=200", "--max-retries=1", "--min-rate=100"),
}
ALL_TCP = 65535


def install() -> None:
    ensure_program("nmap", packages=("nmap",))


def run(target: Target, raw: Path, declared: Collection[Port]) -> Result:
    open_ports: set[Port] = set()
    for protocol, options in SCANS.items():
        command = privileged(["nmap", "-n", "-Pn", *options, "-oX", "-", target.address])
        result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=600)
        if result.returncode != 0:
            raise AuditError(f"`{' '.join(command)}` failed:\n{result.stderr.decode(errors='replace')}")
        (raw / f"nmap-{protocol}.xml").write_bytes(result.stdout)
        if protocol == "tcp" and scanned(result.stdout) != ALL_TCP:
            raise AuditError(f"nmap looked at {scanned(result.stdout)} TCP ports instead of {ALL_TCP}")
        open_ports |= parse(result.stdout)
    return compare(open_ports, declared)


def scanned(report: bytes) -> int:
    return sum(int(row.get("numservices", "0")) for row in ElementTree.fromstring(report).iter("scaninfo"))


def parse(report: bytes) -> set[Port]:
    """What answered. A UDP port that keeps silent is called open|filtered, and is what a firewall makes of it."""
    found = set()
    for row in ElementTree.fromstring(report).iter("port"):
        state = row.find("state")
        if state is not None and state.get("state") == "open":
            found.add((str(row.get("protocol")), int(row.get("portid", "0"))))
    return found


def compare(open_ports: Collection[Port], declared: Collection[Port]) -> Result:
    undeclared = sorted(set(open_ports) - set(declared))
    silent = sorted(set(declared) - set(open_ports))
    listed = ", ".join(map(text, sorted(open_ports))) or "none"
    return Result(
        NAME,
        "Probe from outside (nmap, 65 535 TCP ports, 200 UDP ports)",
        f"open: {listed}; {len(undeclared)} undeclared",
        "nothing open but what is declared",
        not undeclared,
        tuple(Finding(text(port), "open from outside, and declared by nobody") for port in undeclared),
        tuple(Finding(text(port), "declared, but nothing answers") for port in silent),
    )
