#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: droplet_state
short_description: Read what is in force on a droplet
version_added: 0.1.0
description:
  - Asks the running system, not its files, in one trip; what sshd, the packet filter, the kernel, sudo, systemd and the
    listening sockets say is returned as they say it. Changes nothing.
options:
  sysctl: {description: Names of kernel settings to read., type: list, elements: str, default: []}
  certificates:
    description: Certificates that nginx serves, each with C(path) and the C(name) a client asks for.
    type: list
    elements: dict
    default: []
    suboptions:
      path: {description: The certificate's file., type: path, required: true}
      name: {description: Domain or address of the site., type: str, required: true}
  postgresql: {description: Major version of the PostgreSQL that is asked; none without it., type: str, default: ""}
  users: {description: Users whose login sshd is asked about., type: list, elements: str, default: []}
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Verify | Read what is in force
  shipshape.droplet.droplet_state:
    sysctl: [kernel.kptr_restrict]
"""

RETURN = r"""
commands:
  description: C(code), C(out) and C(err) of each command that was asked; one that is not installed is missing.
  type: dict
  returned: always
sshd: {description: The same of C(sshd -T) for each user., type: dict, returned: always}
sudo: {description: What C(sudo -l) says of each account., type: dict, returned: always}
sudoers: {description: Files in C(/etc/sudoers.d)., type: list, elements: str, returned: always}
users: {description: Each account's number., type: dict, returned: always}
groups: {description: Members of each group., type: dict, returned: always}
sysctl: {description: C(value) of each setting and whether this host can change it., type: dict, returned: always}
certificates: {description: What each file and what the server say., type: list, elements: dict, returned: always}
ipv6: {description: Whether the kernel speaks IPv6., type: bool, returned: always}
apparmor: {description: Mode of each profile; null where the kernel has no AppArmor., type: dict, returned: always}
postgresql:
  description: What the server says of its settings, logins and roles, or C(error).
  type: dict
  returned: always
audit_rules: {description: Lines of the rules that shall be loaded., type: list, elements: str, returned: always}
"""

import glob
import grp
import hashlib
import ipaddress
import os
import pwd
import socket
import ssl
from typing import Any, Dict, List, Optional

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.shipshape.droplet.plugins.module_utils import postgresql_state

COMMANDS: Dict[str, List[str]] = {
    "iptables": ["iptables", "-w", "-S"],
    "ip6tables": ["ip6tables", "-w", "-S"],
    "ip6tables mangle": ["ip6tables", "-w", "-t", "mangle", "-S"],
    "sockets": ["ss", "-H", "-tulnp"],
    "connections": ["ss", "-H", "-tn", "state", "established"],
    "addresses": ["ip", "-o", "address", "show", "scope", "global"],
    "apt": ["apt-config", "dump"],
    "units": ["systemctl", "list-units", "--state=failed", "--plain", "--no-legend", "--no-pager"],
    "audit": ["auditctl", "-l"],
}
#: iptables may load a module for a protocol that the kernel does not speak.
NEEDS_IPV6 = ("ip6tables", "ip6tables mangle")
APPARMOR = "/sys/kernel/security/apparmor/profiles"


def ask(module: AnsibleModule, command: List[str]) -> Optional[Dict[str, Any]]:
    program = module.get_bin_path(command[0], opt_dirs=["/usr/sbin", "/sbin"])
    if not program:
        return None
    code, out, err = module.run_command([str(program)] + command[1:])
    return dict(code=code, out=out, err=err)


def setting(name: str) -> Dict[str, Any]:
    """A kernel setting's value. Where /proc is read-only, as in containers, nobody can be blamed for it."""
    path = "/proc/sys/" + name.replace("/", "\0").replace(".", "/").replace("\0", ".")
    try:
        with open(path, encoding="utf-8") as handle:
            return dict(value=" ".join(handle.read().split()), settable=os.access(path, os.W_OK))
    except OSError:
        return dict(value=None, settable=False)


def is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def served(name: str) -> Dict[str, str]:
    """The certificate that a client gets who asks this host for the name."""
    context = ssl.create_default_context()
    # What is served shall be seen, whatever it is.
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with socket.create_connection(("127.0.0.1", 443), timeout=5) as plain:
            with context.wrap_socket(plain, server_hostname=None if is_address(name) else name) as tls:
                data = tls.getpeercert(binary_form=True) or b""
    except (OSError, ValueError) as error:
        return dict(error=str(error), fingerprint="")
    return dict(error="", fingerprint=hashlib.sha256(data).hexdigest())


def certificate(module: AnsibleModule, path: str, name: str) -> Dict[str, Any]:
    check = "-checkip" if is_address(name) else "-checkhost"
    command = ["openssl", "x509", "-in", path, "-noout", "-startdate", "-enddate", "-fingerprint", "-sha256"]
    answer = ask(module, command + ["-issuer", "-subject", "-nameopt", "RFC2253", check, name])
    fields: Dict[str, str] = {}
    for line in answer["out"].splitlines() if answer else []:
        key, _sign, value = line.partition("=")
        fields[key.strip()] = value.strip()
    text = answer["out"] if answer else ""
    print_ = next((value for key, value in fields.items() if key.lower().endswith("fingerprint")), "")
    return dict(
        path=path,
        name=name,
        there=bool(answer and answer["code"] == 0),
        error=answer["err"].strip() if answer else "openssl is not installed",
        begins=fields.get("notBefore", ""),
        ends=fields.get("notAfter", ""),
        issuer=fields.get("issuer", ""),
        self_signed=bool(fields.get("subject")) and fields.get("subject") == fields.get("issuer"),
        names_it="does match certificate" in text,
        fingerprint=print_.replace(":", "").lower(),
        served=served(name),
    )


def apparmor() -> Optional[Dict[str, str]]:
    try:
        with open(APPARMOR, encoding="utf-8") as handle:
            rows = [line.strip().rpartition(" (") for line in handle]
    except OSError:
        return None
    return {name: mode.rstrip(")") for name, _sign, mode in rows if name}


def audit_rules() -> List[str]:
    lines: List[str] = []
    for path in sorted(glob.glob("/etc/audit/rules.d/*.rules")):
        with open(path, encoding="utf-8", errors="replace") as handle:
            lines += [line.strip() for line in handle if line.startswith(("-w", "-a"))]
    return lines


def groups() -> Dict[str, List[str]]:
    """Members of each group, those included whose first group it is."""
    first: Dict[int, List[str]] = {}
    for user in pwd.getpwall():
        first.setdefault(user.pw_gid, []).append(user.pw_name)
    return {group.gr_name: sorted(set(group.gr_mem + first.get(group.gr_gid, []))) for group in grp.getgrall()}


def main() -> None:
    module = AnsibleModule(
        argument_spec=dict(
            sysctl=dict(type="list", elements="str", default=[]),
            certificates=dict(
                type="list",
                elements="dict",
                default=[],
                options=dict(path=dict(type="path", required=True), name=dict(type="str", required=True)),
            ),
            users=dict(type="list", elements="str", default=[]),
            postgresql=dict(type="str", default=""),
        ),
        supports_check_mode=True,
    )
    ipv6 = os.path.exists("/proc/net/if_inet6")
    commands = {}
    for name, command in COMMANDS.items():
        answer = ask(module, command) if ipv6 or name not in NEEDS_IPV6 else None
        if answer is not None:
            commands[name] = answer
    users = {user.pw_name: user.pw_uid for user in pwd.getpwall()}
    whom = "user={},host=localhost,addr=127.0.0.1"
    module.exit_json(
        changed=False,
        commands=commands,
        sshd={user: ask(module, ["sshd", "-T", "-C", whom.format(user)]) for user in module.params["users"]},
        sudo={user: ask(module, ["sudo", "-n", "-l", "-U", user]) for user in users},
        sudoers=sorted(glob.glob("/etc/sudoers.d/*")),
        users=users,
        groups=groups(),
        sysctl={name: setting(name) for name in module.params["sysctl"]},
        certificates=[certificate(module, one["path"], one["name"]) for one in module.params["certificates"]],
        ipv6=ipv6,
        postgresql=postgresql_state.state(module.params["postgresql"]) if module.params["postgresql"] else {},
        apparmor=apparmor(),
        audit_rules=audit_rules(),
    )


if __name__ == "__main__":
    main()
