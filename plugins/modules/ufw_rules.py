#!/usr/bin/python
# MIT License

from __future__ import annotations

DOCUMENTATION = r"""
module: ufw_rules
short_description: Make ufw let in what is declared, in one trip
version_added: 0.1.0
description:
  - Owns only rules whose comment starts with C(shipshape:). It adds those that are missing, then deletes its own that
    are no longer declared, then turns ufw on. Rules of others are left alone and named in RV(foreign).
  - Never resets or flushes anything, so the chains of Docker and fail2ban survive.
  - In check mode on a host without ufw it says what would be added.
options:
  rules:
    description: What to let in.
    type: list
    elements: dict
    required: true
    suboptions:
      name: {description: Whom the port belongs to. Becomes the rule's comment., type: str, required: true}
      port: {description: Port number., type: int, required: true}
      protocol: {description: Transport., type: str, choices: [tcp, udp], default: tcp}
      sources:
        description: Addresses or networks that may connect. Empty means everybody.
        type: list
        elements: str
        default: []
author: Shipshape (@shipshape)
"""

EXAMPLES = r"""
- name: Firewall | Let in what is declared
  shipshape.droplet.ufw_rules:
    rules:
      - {name: ssh, port: 22}
      - {name: postgresql, port: 5432, sources: [10.0.0.4]}
"""

RETURN = r"""
actions:
  description: The ufw commands that were (or in check mode would be) given.
  type: list
  elements: str
  returned: always
foreign:
  description: Rules in force that somebody else wrote.
  type: list
  elements: str
  returned: always
"""

import binascii
import ipaddress
import re
from typing import Any, Dict, List, NamedTuple

from ansible.module_utils.basic import AnsibleModule

MARK = "shipshape: "
RULE_FILES = ("/etc/ufw/user.rules", "/etc/ufw/user6.rules")
DEFAULTS, SETTINGS = "/etc/default/ufw", "/etc/ufw/ufw.conf"
#: Direction, the policy we want, and how /etc/default/ufw says it.
POLICIES = (
    ("incoming", "deny", 'DEFAULT_INPUT_POLICY="DROP"'),
    ("outgoing", "allow", 'DEFAULT_OUTPUT_POLICY="ACCEPT"'),
)


class Rule(NamedTuple):
    """An allow rule for one destination port; ``source`` is empty for everybody."""

    protocol: str
    port: str
    source: str

    def words(self) -> List[str]:
        source = self.source or "any"
        return ["allow", "proto", self.protocol, "from", source, "to", "any", "port", self.port]


def network(source: str) -> str:
    """The form in which ufw keeps an address: no host bits, no /32."""
    value = ipaddress.ip_network(source, strict=False)
    return str(value.network_address) if value.num_addresses == 1 else str(value)


def declared(rules: List[Dict[str, Any]]) -> Dict[Rule, str]:
    """Every declared rule with its comment."""
    wanted: Dict[Rule, str] = {}
    for rule in rules:
        for source in rule["sources"] or [""]:
            key = Rule(rule["protocol"], str(rule["port"]), network(source) if source else "")
            wanted.setdefault(key, MARK + rule["name"])
    return wanted


def parse_rules(text: str) -> Dict[Any, str]:
    """Rules in one of ufw's rule files with their comments. What is not of our form keeps its line as the key."""
    found: Dict[Any, str] = {}
    for line in text.splitlines():
        if not line.startswith("### tuple ### "):
            continue
        words = line.split()[3:]
        comment = ""
        if words[-1].startswith("comment="):
            comment = binascii.unhexlify(words.pop()[len("comment=") :]).decode("utf-8", "replace")
        key: Any = " ".join(words)
        if len(words) == 7 and words[0] == "allow" and words[6] == "in" and words[4] == "any":
            _action, protocol, port, destination, _sport, source, _direction = words
            if destination in ("0.0.0.0/0", "::/0"):
                key = Rule(protocol, port, "" if source in ("0.0.0.0/0", "::/0") else source)
        found[key] = comment
    return found


def read(path: str) -> str:
    try:
        with open(path, encoding="utf-8") as handle:
            return handle.read()
    except FileNotFoundError:
        return ""


def plan(wanted: Dict[Rule, str], present: Dict[Any, str], defaults: str, active: bool) -> List[List[str]]:
    """The ufw commands that are needed; additions come before deletions and before ufw is turned on."""
    commands = []
    for direction, policy, setting in POLICIES:
        if setting not in defaults:
            commands.append(["default", policy, direction])
    for rule, comment in wanted.items():
        if present.get(rule) != comment:
            commands.append(rule.words() + ["comment", comment])
    for key, comment in present.items():
        if isinstance(key, Rule) and comment.startswith(MARK) and key not in wanted:
            commands.append(["delete"] + key.words())
    if not active:
        commands.append(["--force", "enable"])
    return commands


def is_active(module: AnsibleModule) -> bool:
    """Whether ufw starts at boot and its chains are in force now. 'ufw status' would take thirty times as long."""
    if not re.search(r"^ENABLED=yes", read(SETTINGS), re.MULTILINE):
        return False
    iptables = module.get_bin_path("iptables")
    return bool(iptables) and module.run_command([str(iptables), "-S", "ufw-user-input"])[0] == 0


def main() -> None:
    rule_options = dict(
        name=dict(type="str", required=True),
        port=dict(type="int", required=True),
        protocol=dict(type="str", choices=["tcp", "udp"], default="tcp"),
        sources=dict(type="list", elements="str", default=[]),
    )
    module = AnsibleModule(
        argument_spec=dict(rules=dict(type="list", elements="dict", required=True, options=rule_options)),
        supports_check_mode=True,
    )
    ufw = module.get_bin_path("ufw")
    if not ufw and not module.check_mode:
        module.fail_json(msg="ufw is not installed on this host; install the package 'ufw' first.")
    try:
        wanted = declared(module.params["rules"])
    except ValueError as error:
        module.fail_json(msg=f"A source of a firewall rule is no address or network: {error}")
        return
    present: Dict[Any, str] = {}
    for path in RULE_FILES:
        present.update(parse_rules(read(path)))

    commands = plan(wanted, present, read(DEFAULTS), is_active(module))
    if not module.check_mode:
        for command in commands:
            code, out, err = module.run_command([str(ufw)] + command)
            if code != 0:
                module.fail_json(msg="'ufw {}' failed: {}".format(" ".join(command), (err or out).strip()))
    foreign = [
        key if isinstance(key, str) else " ".join(key.words())
        for key, comment in present.items()
        if not comment.startswith(MARK)
    ]
    lines = [" ".join(command) for command in commands]
    result: Dict[str, Any] = dict(changed=bool(commands), actions=lines, foreign=sorted(foreign))
    if module._diff and lines:
        result["diff"] = {"before": "", "after": "".join(line + "\n" for line in lines), "after_header": "ufw"}
    module.exit_json(**result)


if __name__ == "__main__":
    main()
