"""ufw: from declared ports to the commands that are needed. Only rules with our mark are ever deleted."""

from __future__ import annotations

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


def options() -> Dict[str, Any]:
    """The argument that declares the ports to let in."""
    rule = dict(
        name=dict(type="str", required=True),
        port=dict(type="int", required=True),
        protocol=dict(type="str", choices=["tcp", "udp"], default="tcp"),
        sources=dict(type="list", elements="str", default=[]),
    )
    return dict(type="list", elements="dict", default=[], options=rule)


def present_rules() -> Dict[Any, str]:
    """Rules that ufw has, ours and others', with their comments."""
    found: Dict[Any, str] = {}
    for path in RULE_FILES:
        found.update(parse_rules(read(path)))
    return found


def commands(module: AnsibleModule, wanted: Dict[Rule, str]) -> List[List[str]]:
    """What has to be said to ufw on this host."""
    return plan(wanted, present_rules(), read(DEFAULTS), is_active(module))


def apply(module: AnsibleModule, commands: List[List[str]]) -> None:
    ufw = module.get_bin_path("ufw")
    if not ufw:
        module.fail_json(msg="ufw is not installed on this host; install the package 'ufw' first.")
    for command in commands:
        code, out, err = module.run_command([str(ufw)] + command)
        if code != 0:
            module.fail_json(msg="'ufw {}' failed: {}".format(" ".join(command), (err or out).strip()))
