#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: way_in
short_description: Change the way into a droplet, prove it from outside, or have the droplet take the change back
version_added: 0.1.0
description:
  - Brings admins with their keys and sudo rules, sshd with its port, ufw and fail2ban to their declared state in one
    trip, as one change that must be confirmed.
  - Before anything is changed, what is there is kept on the host and a timer is armed that puts it back. Then the
    change is made, and the controller logs in anew (no multiplexing) as an admin with the new port and key and becomes
    root; only that disarms the timer. A reboot before it has come counts as its end.
  - Without that proof (a wrong key, a port blocked on the way, a controller that died) all is as it was within
    O(revert_after) seconds, and at once when the controller can still tell the host so.
  - A new ssh port is opened beside the old one. The old one is closed, and an admin who is not listed any more loses
    keys, sudo, processes and cron jobs, only after the new way in was proven; that is confirmed in the same way.
  - Refuses, with nothing changed, a port that is taken or not let in by O(rules), rules that would cut off the address
    the operator comes from, and a sudo configuration that C(visudo) does not accept.
  - Owns of the firewall only rules whose comment starts with C(shipshape:), never resets or flushes anything, and
    leaves the rules of others alone. Check mode arms nothing and says what would be changed.
extends_documentation_fragment: [shipshape.droplet.file_set]
options:
  admins:
    description: Users who may log in and become root. An existing account is kept and given what it lacks.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: User name., type: str, required: true}
      ssh_keys: {description: All of the user's public keys., type: list, elements: str, required: true}
      groups:
        description: Groups beside sudo, where the host has them. Left out, the account stays in those in which it is.
        type: list
        elements: str
        choices: [docker]
  port: {description: The port of sshd., type: int, default: 22}
  rules:
    description: What the firewall lets in, sshd's port among it.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: Whom the port belongs to. Becomes the rule's comment., type: str, required: true}
      port: {description: Port number., type: int, required: true}
      protocol: {description: Transport., type: str, choices: [tcp, udp], default: tcp}
      sources:
        description: Addresses or networks that may connect. Empty means everybody.
        type: list
        elements: str
        default: []
  renew_host_keys:
    description:
      - Whether an RSA host key of fewer than 3072 bits is replaced, and a key of type RSA or ed25519 made that is
        missing or cannot be read. It is part of the change, so the old key comes back with everything else.
    type: bool
    default: false
  revert_after:
    description: Seconds after which an unconfirmed change is taken back. The proof is tried for a third of it.
    type: int
    default: 100
  stage:
    description: Set by the action plugin.
    type: str
    choices: [open, close, revert]
    default: open
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Way in | Change and prove it
  shipshape.droplet.way_in:
    admins: [{name: deploy, ssh_keys: ["ssh-ed25519 AAAA… laptop"]}]
    port: 22
    rules: [{name: ssh, port: 22}]
    files:
      - {path: /etc/sudoers.d/50-shipshape-admins, template: sudoers.j2, mode: "0440", validate: visudo -cf %s}
"""

RETURN = r"""
actions:
  description: What was (or in check mode would be) done to host keys, accounts, firewall and units.
  type: list
  elements: str
  returned: success
changed_files:
  description: The paths that were (or in check mode would be) created, changed or removed.
  type: list
  elements: str
  returned: success
remaining:
  description: What is done only after the new way in was proven, such as C(close port 22).
  type: list
  elements: str
  returned: success
user: {description: The admin who logged in to prove it., type: str, returned: when something changed}
port: {description: The port of that login., type: int, returned: when something changed}
"""

import contextlib
import os
import time
from typing import Any, Dict, List, Tuple

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import admins as accounts
from ansible_collections.shipshape.droplet.plugins.module_utils import (
    file_entry,
    file_set,
    host_keys,
    ufw,
    umask,
    way_in,
)

PORT_FILE = "/etc/ssh/sshd_config.d/00-shipshape-port.conf"
SOCKET_DIRECTORY = "/etc/systemd/system/ssh.socket.d"
SOCKET_FILE = SOCKET_DIRECTORY + "/shipshape.conf"


class Change:
    """What is and what shall be, of everything that leads into the host."""

    def __init__(self, module: AnsibleModule) -> None:
        self.module = module
        params = module.params
        self.closing = params["stage"] == "close"
        self.socket = way_in.uses_socket()
        self.ports_now = way_in.current_ports(module, self.socket)
        others = [port for port in self.ports_now if port != params["port"]]
        self.ports = [params["port"]] if self.closing else [params["port"]] + others
        self.names = [admin["name"] for admin in params["admins"]]
        self.gone = [name for name in way_in.confirmed_admins() if name not in self.names]
        self.remaining = [] if self.closing else [f"close port {port}" for port in others]
        self.remaining += [] if self.closing else [f"dismiss admin {name}" for name in self.gone]

        kept = [{"name": "ssh", "port": port, "protocol": "tcp", "sources": []} for port in self.ports[1:]]
        self.ufw_commands = ufw.commands(module, ufw.declared(params["rules"] + kept))
        self.ufw_active = ufw.is_active(module)
        self.account_commands, self.undo = self._accounts()
        self.weak_keys = host_keys.due(module) if params["renew_host_keys"] else []
        self.specs, self.texts = self._files()

    def _accounts(self) -> Tuple[List[accounts.Command], List[accounts.Command]]:
        do: List[accounts.Command] = []
        undo: List[accounts.Command] = []
        steps = []
        for admin in self.module.params["admins"]:
            more = None if admin["groups"] is None else accounts.there_are(admin["groups"])
            steps.append(accounts.to_admit(admin["name"], accounts.look_up(admin["name"]), more))
        if self.closing:
            steps += [accounts.to_dismiss(name, accounts.look_up(name)) for name in self.gone]
        for commands, reverse in steps:
            do += commands
            undo += reverse
        return do, undo

    def _files(self) -> Tuple[List[Dict[str, Any]], Dict[str, str]]:
        """The declared files, those that follow from the ports, and the absence of what belonged to former admins."""
        params = self.module.params
        texts = file_set.unpack(params["contents"])
        # First: sshd must have its keys before it is told of them.
        specs, key_texts = host_keys.files(self.module, self.weak_keys, "ssh.service")
        texts.update(key_texts)
        specs += [dict(spec) for spec in params["files"]]
        # Where systemd listens, an sshd that is told to reload tries to take the port for itself and dies of it, with
        # its directory in /run. It is stopped at the end of the change, and the next login starts a new one.
        if self.socket:
            for spec in specs:
                spec["reload"] = None if spec["reload"] == "ssh.service" else spec["reload"]
        specs.append(dict(file_entry.PLAIN, path=PORT_FILE, mode="0600"))
        texts[PORT_FILE] = way_in.port_file(self.ports)
        if not self.socket:
            specs[-1]["reload"] = "ssh.service"
        else:
            specs.append(dict(file_entry.PLAIN, path=SOCKET_DIRECTORY, state="directory"))
            specs.append(dict(file_entry.PLAIN, path=SOCKET_FILE))
            texts[SOCKET_FILE] = way_in.socket_file(self.ports)
        if self.closing:
            for name in self.gone:
                home = accounts.home_of(name)
                for path in (f"{home}/.ssh/authorized_keys", f"/var/spool/cron/crontabs/{name}"):
                    specs.append(dict(file_entry.PLAIN, path=path, state="absent"))
        return specs, texts

    def entries(self) -> List[file_entry.Entry]:
        found: List[file_entry.Entry] = [
            file_entry.Entry(self.module, spec, self.texts.get(spec["path"])) for spec in self.specs
        ]
        purge = self.module.params["purge"]
        gone: List[file_entry.Entry] = file_set.expand_purge(self.module, purge, [entry.path for entry in found])
        return found + gone

    def refuse(self) -> None:
        """Stop at what would shut somebody out, before anything is changed."""
        params = self.module.params
        if not all(self.module.get_bin_path(name) for name in ("ss", "visudo")):
            return  # check mode on a bare host: the packages that have them would be here by now
        _code, out, _err = self.module.run_command(["ss", "-Hltnp"])
        taken, address = way_in.listeners(out), way_in.operator_address()
        way_in.check(params["rules"], params["port"], self.ports_now, taken, address)
        code, _out, err = self.module.run_command(["visudo", "-cq"])
        if code != 0:
            raise way_in.Refused(f"sudo's configuration is broken on this host already; mend it first:\n{err.strip()}")


def run_all(module: AnsibleModule, commands: List[List[str]]) -> None:
    for command in commands:
        code, out, err = module.run_command(command)
        if code != 0:
            module.fail_json(msg="'{}' failed: {}".format(" ".join(command), (err or out).strip()))


def listen_anew(module: AnsibleModule, changed_files: List[str]) -> None:
    """Have systemd take up new ports and settings for sshd. A socket cannot start while the service has it.

    Sessions live on.
    """
    if any(name.startswith(("/etc/ssh/", SOCKET_DIRECTORY)) for name in changed_files):
        run_all(module, [["systemctl", "daemon-reload"], ["systemctl", "stop", "ssh.service"]])
        run_all(module, [["systemctl", "restart", "ssh.socket"]])


def assert_ports(module: AnsibleModule, change: Change) -> None:
    """Fail when sshd listens elsewhere than on the declared ports, because another file says so too."""
    deadline = time.monotonic() + 5
    while set(way_in.current_ports(module, change.socket)) != set(change.ports):
        if time.monotonic() > deadline:
            found = ", ".join(str(port) for port in way_in.current_ports(module, change.socket))
            module.fail_json(
                msg=f"sshd's ports are {found} and not {change.ports}: does /etc/ssh/sshd_config or another file in "
                "/etc/ssh/sshd_config.d say Port too? Comment that line out."
            )
        time.sleep(0.2)


def apply(module: AnsibleModule, change: Change, token: str) -> Dict[str, Any]:
    """Make the armed change."""
    run_all(module, change.account_commands)
    result = file_set.converge(module, change.entries())
    run_all(module, [["visudo", "-cq"]])
    if change.socket:
        listen_anew(module, result["changed_files"])
    ufw.apply(module, change.ufw_commands)
    assert_ports(module, change)
    return dict(result, changed=True, pending=token)


def describe(change: Change) -> List[str]:
    """What will be done to host keys, accounts and firewall, those two in the words of the commands."""
    said = [str(renewal) for renewal in change.weak_keys]
    said += [" ".join(command) for command in change.account_commands]
    return said + ["ufw " + " ".join(command) for command in change.ufw_commands]


def converge(module: AnsibleModule) -> Dict[str, Any]:
    change = Change(module)
    entries = change.entries() if not change.account_commands or module.check_mode else []
    said = describe(change)
    differs = bool(change.account_commands or change.ufw_commands or any(entry.changed for entry in entries))
    token = ""
    if host_keys.notice(change.weak_keys):
        module.warn(host_keys.notice(change.weak_keys))
    if differs:
        change.refuse()
    if differs and not module.check_mode:
        paths = [spec["path"] for spec in change.specs]
        paths += [
            file_entry.kept_at(spec["path"]) for spec in change.specs if spec["foreign"] or spec["state"] == "original"
        ]
        paths += [entry.path for entry in entries if entry.state == "absent"]
        plan = way_in.Plan(
            list(dict.fromkeys(paths)),
            change.undo,
            change.ufw_active,
            change.names if change.closing else change.names + change.gone,
            change.gone if change.closing else [],
        )
        token = way_in.arm(module, change.texts, plan, module.params["revert_after"])
    # Without a token there is nothing that could shut anybody out: at most a stopped service to start.
    result = apply(module, change, token) if token else dict(file_set.converge(module, entries), pending="")
    result["actions"] = said + result["actions"]
    result["changed"] = result["changed"] or differs or bool(change.remaining)
    if module._diff and (said or change.remaining):
        lines = "".join(line + "\n" for line in said + change.remaining)
        result["diff"] += [{"before": "", "after": lines, "after_header": "way in"}]
    return dict(result, remaining=change.remaining)


def main() -> None:
    options = file_set.argument_spec()
    options.update(
        admins=dict(
            type="list",
            elements="dict",
            required=True,
            options=dict(
                name=dict(type="str", required=True),
                ssh_keys=dict(type="list", elements="str", required=True, no_log=False),
                groups=dict(type="list", elements="str", choices=list(accounts.MORE_GROUPS)),
            ),
        ),
        port=dict(type="int", default=22),
        rules=ufw.options(),
        renew_host_keys=dict(type="bool", default=False),
        revert_after=dict(type="int", default=100),
        stage=dict(type="str", choices=["open", "close", "revert"], default="open"),
    )
    module = AnsibleModule(argument_spec=options, supports_check_mode=True)
    umask.ordinary()
    # Whoever made it is gone: begin from what was confirmed last.
    if way_in.is_armed() and not module.check_mode:
        problem = way_in.revert(module)
        if problem:
            module.fail_json(
                msg=f"The change to the way in that nobody has confirmed could not be taken back: {problem}"
            )
    if module.params["stage"] == "revert":
        module.exit_json(changed=True)
    warnings = []
    if way_in.reverted_at():
        warnings.append(f"a change to the way in that nobody confirmed was taken back on {way_in.reverted_at()}")
    try:
        # In check mode nothing is made, and so there is nothing that could be taken back half.
        with contextlib.nullcontext() if module.check_mode else way_in.locked():
            result = converge(module)
    except (way_in.Refused, ValueError) as error:
        module.fail_json(msg=str(error))
    except SystemExit:
        # A step said why it failed; what was done before it is put back now rather than in a minute.
        if os.path.exists(way_in.PROGRAM) and not module.check_mode:
            way_in.revert(module)
        raise
    for warning in warnings:
        module.warn(warning)
    if warnings and not module.check_mode:
        way_in.forget_reverted()
    module.exit_json(**result)


if __name__ == "__main__":
    main()
