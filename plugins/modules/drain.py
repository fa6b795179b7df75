#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Let a host's neighbours take its load before it is worked on, and take part again afterwards
version_added: 0.1.0
description:
  - Refuses new connections to the given ports, so that a proxy turns to the next host at once and has sent nothing yet;
    what is connected goes on. Waits until nobody is connected any more.
  - The refusal ends by itself after a time, and with a reboot, so that a dead controller leaves no host idle.
options:
  ports:
    description: TCP ports to refuse. With none, the module does nothing.
    type: list
    elements: int
    required: true
  state:
    description: Whether new connections are refused.
    type: str
    choices: [drained, serving]
    default: drained
  patience:
    description: Seconds to wait for those who are connected. Whoever is after that stays connected.
    type: int
    default: 30
  limit:
    description: Seconds after which the host takes part again by itself.
    type: int
    default: 3600
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Drain | Let the other hosts serve
  shipshape.droplet.drain:
    ports: [20010]

- name: Drain | Take part again
  shipshape.droplet.drain:
    ports: [20010]
    state: serving
"""

RETURN = r"""
connected:
  description: Connections that were still open when the module ceased to wait.
  type: int
  returned: always
"""

import shlex
import time
from typing import List

from ansible.module_utils.basic import AnsibleModule

MARK = "shipshape-drain"
DEADLINE = "shipshape-drain-end"
PROGRAMS = ("iptables", "ip6tables")


def rule(port: int) -> List[str]:
    return [
        "INPUT", "--protocol", "tcp", "--dport", str(port), "--syn", "--match", "comment", "--comment", MARK,
        "--jump", "REJECT", "--reject-with", "tcp-reset",
    ]  # fmt: skip


def present(module: AnsibleModule, port: int) -> List[str]:
    """The programs whose packet filter has our rule."""
    return [name for name in PROGRAMS if module.run_command([name, "--wait", "--check", *rule(port)])[0] == 0]


def ending(ports: List[int]) -> str:
    """What takes all of it back, whether or not it is there."""
    lines = [shlex.join([name, "--wait", "--delete", *rule(port)]) for port in ports for name in PROGRAMS]
    return "; ".join(line + " 2>/dev/null" for line in lines) + "; true"


def connected(module: AnsibleModule, ports: List[int]) -> int:
    wanted = " or ".join(f"sport = :{port}" for port in ports)
    _code, out, _err = module.run_command(["ss", "--no-header", "--tcp", "state", "established", f"( {wanted} )"])
    return len(out.splitlines())


def drain(module: AnsibleModule, ports: List[int]) -> None:
    module.run_command(["systemctl", "stop", DEADLINE + ".timer"])
    module.run_command(
        ["systemd-run", "--quiet", "--collect", "--unit=" + DEADLINE, f"--on-active={module.params['limit']}"]
        + ["/bin/sh", "-c", ending(ports)],
        check_rc=True,
    )
    for port in ports:
        there = present(module, port)
        for name in PROGRAMS:
            if name not in there:
                chain, *match = rule(port)
                module.run_command([name, "--wait", "--insert", chain, "1", *match], check_rc=True)


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            ports=dict(type="list", elements="int", required=True),
            state=dict(type="str", choices=["drained", "serving"], default="drained"),
            patience=dict(type="int", default=30),
            limit=dict(type="int", default=3600),
        ),
        supports_check_mode=True,
    )
    ports = module.params["ports"]
    if not ports:
        module.exit_json(changed=False, connected=0)
    states = [present(module, port) for port in ports]
    if module.params["state"] == "serving":
        changed = any(states)
        if changed and not module.check_mode:
            module.run_command(["/bin/sh", "-c", ending(ports)], check_rc=True)
            module.run_command(["systemctl", "stop", DEADLINE + ".timer"])
        module.exit_json(changed=changed, connected=connected(module, ports))
    changed = any(len(there) < len(PROGRAMS) for there in states)
    if module.check_mode:
        module.exit_json(changed=changed, connected=connected(module, ports))
    drain(module, ports)
    deadline = time.monotonic() + module.params["patience"]
    while (count := connected(module, ports)) and time.monotonic() < deadline:
        time.sleep(0.5)
    module.exit_json(changed=changed, connected=count)


if __name__ == "__main__":
    main()
