"""Read what is in force on a droplet in one trip, probe it from here, and say where it is not what is declared."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from ansible.errors import AnsibleActionFail
from ansible.plugins.action import ActionBase
from ansible_collections.shipshape.droplet.plugins.plugin_utils import probe, verify, verify_ports
from ansible_collections.shipshape.droplet.plugins.plugin_utils.declared_ports import Declared, declared, text
from ansible_collections.shipshape.droplet.plugins.plugin_utils.site import whole_domains
from ansible_collections.shipshape.droplet.plugins.plugin_utils.verify_finding import Finding, output

MODULE = "shipshape.droplet.droplet_state"


class ActionModule(ActionBase):
    """The judgement is made on the controller, by functions that know no droplet."""

    TRANSFERS_FILES = False
    _VALID_ARGS = frozenset(
        (
            "rules",
            "listens",
            "bound",
            "published",
            "admins",
            "sshd",
            "sysctl",
            "unattended_upgrades",
            "sites",
            "postgresql",
            "address",
        )
    )

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        given: dict[str, Any] = self._task.args
        try:
            ports = declared(given.get("rules") or [], given.get("listens") or [], given.get("bound") or {})
        except ValueError as error:
            raise AnsibleActionFail(f"the declared ports: {error}") from error
        admins = [str(name) for name in given.get("admins") or []]
        # What has but a path on a domain is shown by the certificate of that.
        sites = [site for site in given.get("sites") or [] if site.get("certificate") and whole_domains(site)]
        asked = {
            "sysctl": list(given.get("sysctl") or {}),
            "certificates": [{"path": site["certificate"], "name": whole_domains(site)[0]} for site in sites],
            "users": ["root", *admins],
            "postgresql": str((given.get("postgresql") or {}).get("version", "")),
        }
        state = self._execute_module(module_name=MODULE, module_args=asked, task_vars=task_vars)
        if state.get("failed"):
            failed: dict[str, Any] = state
            return failed
        for one, site in zip(state["certificates"], sites, strict=True):
            one["self_signed_wanted"] = bool(site.get("self_signed"))
        wanted = verify.Wanted(
            ports=ports,
            rules=given.get("rules") or [],
            published=given.get("published"),
            admins=admins,
            sshd=given.get("sshd") or [],
            sysctl=given.get("sysctl") or {},
            upgrades=bool(given.get("unattended_upgrades", True)),
            postgresql=given.get("postgresql"),
        )
        findings = verify.judge(state, wanted, datetime.now(UTC))
        probed: dict[str, str] = {}
        for address in addresses(str(given.get("address") or ""), state):
            probed[address] = probe_one(address, ports, callers(state, ports), findings)
        return result(findings, probed)


def addresses(name: str, state: Mapping[str, Any]) -> list[str]:
    """Where the droplet is found: what its name leads to, and the addresses of its own that the world can route to."""
    if not name:
        return []
    try:
        found = [str(info[4][0]) for info in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        # The name may be one of the operator's ssh configuration only.
        found = []
    for line in (output(state, "addresses") or "").splitlines():
        own = line.split()[3].partition("/")[0] if len(line.split()) > 3 else ""
        if own and ipaddress.ip_address(own).is_global:
            found.append(own)
    return list(dict.fromkeys(found))


def callers(state: Mapping[str, Any], ports: Sequence[Declared]) -> list[str]:
    """Who is logged in to the droplet just now: we are among them, under the address that it sees."""
    ssh = {str(port.port) for port in ports if port.name == "ssh"}
    found = []
    for line in (output(state, "connections") or "").splitlines():
        *_queues, local, peer = line.split() or ["", ""]
        address = peer.rpartition(":")[0].strip("[]").removeprefix("::ffff:").partition("%")[0]
        if local.rpartition(":")[2] not in ssh:
            continue
        try:
            found.append(str(ipaddress.ip_address(address)))
        except ValueError:
            continue
    return found


def probe_one(address: str, ports: Sequence[Declared], peers: Sequence[str], findings: list[Finding]) -> str:
    try:
        answers = probe.tcp(address)
    except OSError as error:
        return f"could not be asked from here: {error.strerror or error}"
    opened = answers.open | probe.udp(address).open
    own = [answers.own] if answers.own else []
    findings += verify_ports.probe(address, opened, ports, [*own, *peers])
    return f"open: {', '.join(text(port) for port in sorted(opened)) or 'nothing'}"


def result(findings: Sequence[Finding], probed: Mapping[str, str]) -> dict[str, Any]:
    """The list stands in the message alone: Ansible prints a failed task's other results as one long line beside it."""
    seen = "; ".join(f"{address} {said}" for address, said in probed.items())
    if not findings:
        return {"changed": False, "msg": f"In force is what was declared. Probe: {seen or 'none'}"}
    count = f"{len(findings)} finding{'s' if len(findings) > 1 else ''}"
    lines = "\n".join(f"  {number}. {finding}" for number, finding in enumerate(findings, 1))
    message = f"{count}; nothing was changed.\n{lines}\nProbe: {seen or 'none'}"
    return {"changed": False, "failed": True, "msg": message}
