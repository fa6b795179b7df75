"""The judgement of a droplet: what one in production said, each time with one thing changed."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils import verify_ports
from ansible_collections.shipshape.droplet.plugins.plugin_utils.declared_ports import declared, reachable
from ansible_collections.shipshape.droplet.plugins.plugin_utils.verify import Wanted, judge

RECORDED = json.loads((Path(__file__).parent / "verify_outputs" / "state.json").read_text(encoding="utf-8"))
NOW = datetime(2026, 12, 1, tzinfo=UTC)
PUBLISHED = [{"name": "http", "port": 80, "protocol": "tcp"}, {"name": "https", "port": 443, "protocol": "tcp"}]
RULES = [{"name": "ssh", "port": 22}, *PUBLISHED]
LISTENS = [
    *({**rule, "addresses": ["*"], "sources": []} for rule in PUBLISHED),
    {"name": "shop", "port": 20000, "protocol": "tcp", "addresses": ["127.0.0.1"], "sources": []},
    {"name": "postgresql", "port": 5432, "protocol": "tcp", "addresses": ["localhost"], "sources": []},
]
WANTED = Wanted(
    ports=declared(RULES, LISTENS),
    rules=RULES,
    published=PUBLISHED,
    admins=["deploy"],
    sshd=["permitrootlogin no", "passwordauthentication no", "port 22"],
    sysctl={"net.ipv4.tcp_syncookies": 1, "kernel.kptr_restrict": 2, "net.ipv4.conf.all.log_martians": 1},
)


@pytest.fixture
def state() -> dict[str, Any]:
    return copy.deepcopy(RECORDED)


def say(state: dict[str, Any], name: str, old: str, new: str) -> None:
    """Another word in a command's output."""
    answer = state["commands"][name]
    assert old in answer["out"]
    answer["out"] = answer["out"].replace(old, new)


def found(state: dict[str, Any], wanted: Wanted = WANTED, now: datetime = NOW) -> list[str]:
    return [str(finding) for finding in judge(state, wanted, now)]


def only(state: dict[str, Any], *parts: str, wanted: Wanted = WANTED, now: datetime = NOW) -> None:
    """One finding, which has these parts."""
    findings = found(state, wanted, now)
    assert len(findings) == 1, findings
    for part in parts:
        assert part in findings[0]


def test_a_droplet_that_is_as_declared_has_no_findings(state: dict[str, Any]) -> None:
    assert found(state) == []


# ---- the way in


def test_a_line_of_sshd_that_differs_is_named_once_with_what_sshd_says(state: dict[str, Any]) -> None:
    for answer in state["sshd"].values():
        answer["out"] = answer["out"].replace("passwordauthentication no", "passwordauthentication yes")
    only(state, "sshd: found `passwordauthentication yes`", "declared: passwordauthentication no", "00-shipshape.conf")


def test_a_match_block_for_one_user_is_found(state: dict[str, Any]) -> None:
    state["sshd"]["root"]["out"] = state["sshd"]["root"]["out"].replace("permitrootlogin no", "permitrootlogin yes")
    only(state, "`permitrootlogin yes` for root")


def test_an_sshd_that_refuses_its_configuration_is_one_finding(state: dict[str, Any]) -> None:
    for answer in state["sshd"].values():
        answer.update(code=255, out="", err="line 3: Bad configuration option")
    only(state, "Bad configuration option")


def test_a_grant_of_sudo_to_somebody_else_names_the_foreign_file(state: dict[str, Any]) -> None:
    state["sudo"]["daemon"]["out"] = "User daemon may run the following commands on shop1:\n    (ALL) NOPASSWD: ALL\n"
    state["sudoers"].append("/etc/sudoers.d/99-foreign")
    only(state, "daemon: (ALL) NOPASSWD: ALL", "only `admins`", "/etc/sudoers.d/99-foreign")


def test_a_grant_to_everybody_is_one_finding(state: dict[str, Any]) -> None:
    for number in range(9):
        out = f"User u{number} may run the following commands on shop1:\n    (ALL) ALL\n"
        state["sudo"][f"u{number}"] = {"code": 0, "out": out, "err": ""}
    only(state, "u0, u1, u2, u3, u4 and 4 more: (ALL) ALL")


def test_an_admin_who_cannot_become_root_is_found(state: dict[str, Any]) -> None:
    state["sudo"]["deploy"]["out"] = "User deploy is not allowed to run sudo on shop1.\n"
    only(state, "deploy: nothing that sudo allows")


def test_a_second_root_and_a_missing_admin_are_found(state: dict[str, Any]) -> None:
    state["users"] = {"root": 0, "toor": 0}
    assert [text.split(";")[0] for text in found(state)] == [
        "accounts: found toor with number 0, which is root",
        "accounts: found no account deploy",
    ]


@pytest.mark.parametrize("group", ["docker", "sudo", "disk"])
def test_a_stranger_in_a_group_that_is_as_good_as_root_is_found(state: dict[str, Any], group: str) -> None:
    state["groups"][group] = ["deploy", "www-data"]
    only(state, f"www-data in group {group}", f"gpasswd -d www-data {group}")


# ---- firewall


#: Where our chain has the say, and the jump that leads there.
DECIDES = {"iptables": ("iptables", "-j DOCKER-USER"), "ip6tables": ("ip6tables mangle", "-j SHIPSHAPE-DOCKER")}


@pytest.mark.parametrize(("program", "prefix"), [("iptables", "ufw"), ("ip6tables", "ufw6")])
class TestFirewall:
    def test_a_stopped_ufw_is_one_finding(self, state: dict[str, Any], program: str, prefix: str) -> None:
        state["commands"][program]["out"] = "".join(
            line for line in state["commands"][program]["out"].splitlines(keepends=True) if prefix not in line
        )
        only(state, "ufw is not active")

    def test_a_rule_that_nobody_declares_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        state["commands"][program]["out"] += f"-A {prefix}-user-input -p tcp -m tcp --dport 25 -j ACCEPT\n"
        only(state, "25/tcp open for everybody", "nobody declares")

    def test_a_declared_rule_that_is_missing_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        say(state, program, f"-A {prefix}-user-input -p tcp -m tcp --dport 443 -j ACCEPT\n", "")
        only(state, "443/tcp closed for everybody", "open, for https")

    def test_a_rule_of_another_form_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        state["commands"][program]["out"] += f"-A {prefix}-user-input -s 203.0.113.9/32 -j ACCEPT\n"
        only(state, "-s 203.0.113.9/32 -j ACCEPT")

    def test_a_rule_past_ufw_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        state["commands"][program]["out"] += "-A INPUT -p tcp -m tcp --dport 25 -j ACCEPT\n"
        only(state, "past ufw")

    def test_an_open_policy_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        say(state, program, "-P INPUT DROP", "-P INPUT ACCEPT")
        only(state, "`-P INPUT ACCEPT`")

    def test_a_missing_jump_to_our_chain_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        say(state, program, "-A DOCKER-USER -j SHIPSHAPE-DOCKER\n", "")
        only(state, "DOCKER-USER begins with", "-j SHIPSHAPE-DOCKER")

    def test_a_rule_before_ours_in_dockers_chain_is_found(
        self, state: dict[str, Any], program: str, prefix: str
    ) -> None:
        old = "-A DOCKER-USER -j SHIPSHAPE-DOCKER\n"
        say(state, program, old, f"-A DOCKER-USER -j ACCEPT\n{old}")
        only(state, "DOCKER-USER begins with `-j ACCEPT`")

    def test_a_missing_and_a_foreign_rule_in_our_chain_are_found(
        self, state: dict[str, Any], program: str, prefix: str
    ) -> None:
        old, new = "-A SHIPSHAPE-DOCKER -o docker+ -j DROP", "-A SHIPSHAPE-DOCKER -o docker+ -j ACCEPT"
        say(state, DECIDES[program][0], old, new)
        assert [("without" in text, "-j ACCEPT" in text) for text in found(state)] == [(True, False), (False, True)]

    def test_our_chain_in_another_order_is_found(self, state: dict[str, Any], program: str, prefix: str) -> None:
        drop, passed = "-m conntrack --ctstate DNAT -j DROP", "-i docker+ -j RETURN"
        program, _jump = DECIDES[program]
        say(state, program, drop, "X")
        say(state, program, passed, drop)
        say(state, program, "X", passed)
        only(state, "in another order")

    def test_a_rule_that_lets_forwarded_packets_pass_first_is_found(
        self, state: dict[str, Any], program: str, prefix: str
    ) -> None:
        program, jump = DECIDES[program]
        say(state, program, f"-A FORWARD {jump}", f"-A FORWARD -i eth0 -j ACCEPT\n-A FORWARD {jump}")
        only(state, "FORWARD begins with `-i eth0 -j ACCEPT`")


def test_a_rule_for_listed_sources_is_compared_with_each_source(state: dict[str, Any]) -> None:
    rules = [*RULES, {"name": "office", "port": 25, "sources": ["203.0.113.7", "2001:db8::1"]}]
    wanted = replace(WANTED, rules=rules)
    state["commands"]["iptables"]["out"] += "-A ufw-user-input -s 203.0.113.7/32 -p tcp -m tcp --dport 25 -j ACCEPT\n"
    only(state, "IPv6", "closed for 2001:db8::1/128", wanted=wanted)
    say(state, "iptables", "203.0.113.7", "203.0.113.8")
    assert len(found(state, wanted)) == 3


def test_without_docker_and_without_ipv6_neither_is_looked_for(state: dict[str, Any]) -> None:
    del state["commands"]["ip6tables"]
    say(state, "iptables", "DOCKER-USER", "OTHER")
    assert found({**state, "ipv6": False}, replace(WANTED, published=None)) == []


# ---- what listens


def listening(state: dict[str, Any], address: str, name: str = "python3") -> None:
    state["commands"]["sockets"]["out"] += f'tcp LISTEN 0 5 {address} 0.0.0.0:* users:(("{name}",pid=7,fd=3))\n'


@pytest.mark.parametrize("address", ["0.0.0.0:8000", "[::]:8000", "*:8000", "10.0.0.2:8000"])
def test_a_listener_that_nobody_declares_is_found_with_its_process(state: dict[str, Any], address: str) -> None:
    listening(state, address)
    only(state, f"python3 on {address}/tcp", "nobody declares that port")


def test_a_service_that_listens_more_widely_than_declared_is_found(state: dict[str, Any]) -> None:
    listening(state, "0.0.0.0:20000")
    only(state, "python3 on 0.0.0.0:20000/tcp", "shop listens on 127.0.0.1 only, for this host alone")


@pytest.mark.parametrize("address", ["127.0.0.1:8000", "[::1]:8000", "127.0.0.53%lo:53"])
def test_what_listens_on_the_loopback_is_nobodys_business(state: dict[str, Any], address: str) -> None:
    listening(state, address)
    assert found(state) == []


def test_a_service_may_listen_on_the_private_address_it_declares_and_on_no_other(state: dict[str, Any]) -> None:
    ports = declared(RULES, LISTENS, {"postgresql": ["localhost", "10.0.0.3"]})
    listening(state, "10.0.0.3:5432", "postgres")
    assert found(state, replace(WANTED, ports=ports)) == []
    listening(state, "0.0.0.0:5432", "postgres")
    only(state, "postgres on 0.0.0.0:5432", "127.0.0.1 and ::1 and 10.0.0.3", wanted=replace(WANTED, ports=ports))


# ---- the rest


def test_a_kernel_setting_changed_by_hand_is_found_and_one_that_nobody_can_set_is_not(state: dict[str, Any]) -> None:
    assert state["sysctl"]["kernel.kptr_restrict"] == {"settable": False, "value": "0"}
    state["sysctl"]["net.ipv4.tcp_syncookies"]["value"] = "0"
    only(state, "net.ipv4.tcp_syncookies = 0; declared: 1")


def test_updates_without_the_security_origin_or_turned_off_are_found(state: dict[str, Any]) -> None:
    say(state, "apt", "Security", "Updates")
    say(state, "apt", "security", "updates")
    say(state, "apt", 'Periodic::Unattended-Upgrade "1"', 'Periodic::Unattended-Upgrade "0"')
    assert len(found(state)) == 2
    assert found(state, replace(WANTED, upgrades=False)) == []


def test_a_failed_unit_is_named(state: dict[str, Any]) -> None:
    state["commands"]["units"]["out"] = "● shop.service loaded failed failed Shipshape app shop\n"
    only(state, "shop.service has failed", "journalctl -u shop.service")


def test_audit_rules_that_are_not_loaded_are_found_where_the_kernel_lets_one_ask(state: dict[str, Any]) -> None:
    state["audit_rules"] = ["-w /etc/passwd -p wa -k identity", "-a always,exit -F arch=b64 -S mount -F key=mounts"]
    assert found(state) == []
    state["commands"]["audit"] = {"code": 0, "out": "-w /etc/passwd -p wa -k identity\n", "err": ""}
    only(state, "no rule with key mounts")


def test_audit_rules_of_which_only_some_are_loaded_are_counted(state: dict[str, Any]) -> None:
    both = ["-w /etc/passwd -p wa -k identity", "-w /etc/shadow -p wa -k identity"]
    state["audit_rules"] = [*both, both[0]]
    state["commands"]["audit"] = {"code": 0, "out": "\n".join(both), "err": ""}
    assert found(state) == []
    state["commands"]["audit"]["out"] = both[0]
    only(state, "1 of 2 rules with key identity in force", "augenrules --load")


def test_apparmor_that_enforces_nothing_is_found(state: dict[str, Any]) -> None:
    state["apparmor"] = {"/usr/bin/man": "enforce", "busybox": "unconfined"}
    assert found(state) == []
    state["apparmor"] = {"/usr/bin/man": "complain"}
    only(state, "none of them enforced")


def test_an_apparmor_profile_that_only_complains_is_named(state: dict[str, Any]) -> None:
    state["apparmor"] = {"/usr/bin/man": "enforce", "/usr/sbin/mysqld": "complain"}
    only(state, "profile /usr/sbin/mysqld in complain mode", "`aa-enforce /usr/sbin/mysqld`")


def test_an_expired_certificate_is_found(state: dict[str, Any]) -> None:
    only(state, "valid from", "Feb 19 10:31:05 2027", now=datetime(2027, 2, 20, tzinfo=UTC))


def test_a_certificate_other_than_the_file_is_found(state: dict[str, Any]) -> None:
    state["certificates"][0]["served"]["fingerprint"] = "00" * 32
    only(state, "another one served", "systemctl reload nginx")


def test_a_certificate_for_other_names_or_a_placeholder_is_found(state: dict[str, Any]) -> None:
    state["certificates"][0].update(names_it=False, self_signed=True)
    assert [("other names" in text, "self-signed" in text) for text in found(state)] == [(False, True), (True, False)]
    state["certificates"][0].update(names_it=True, self_signed_wanted=True)
    assert found(state) == []


def test_a_site_without_certificate_or_server_is_found(state: dict[str, Any]) -> None:
    state["certificates"][0]["served"] = {"error": "Connection refused", "fingerprint": ""}
    only(state, "nothing served on port 443: Connection refused")
    state["certificates"][0].update(there=False, error="No such file")
    only(state, "none at /etc/shipshape/tls/shop/fullchain.pem")


@pytest.mark.parametrize("name", ["iptables", "sockets", "apt", "units"])
def test_a_command_that_gives_no_answer_is_no_pass(state: dict[str, Any], name: str) -> None:
    state["commands"][name].update(code=1, out="", err="Operation not permitted")
    assert any("Operation not permitted" in text for text in found(state))
    del state["commands"][name]
    assert any(f"no program for `{name}`" in text for text in found(state))


# ---- the declaration and the probe

OFFICE = {"name": "office", "port": 25, "sources": ["203.0.113.0/24", "2001:db8::/32"]}


def test_a_stranger_may_find_open_what_is_for_everybody_only() -> None:
    ports = declared([*RULES, OFFICE], LISTENS)
    assert reachable(ports) == {("tcp", 22), ("tcp", 80), ("tcp", 443)}
    assert ("tcp", 25) in reachable(ports, ["2001:db8::7"]) and ("tcp", 25) in reachable(ports, ["203.0.113.9"])
    assert ("tcp", 25) not in reachable(ports, ["198.51.100.1"])


def test_the_probe_finds_what_is_open_and_not_for_whoever_asks() -> None:
    ports = declared([*RULES, OFFICE], LISTENS)
    opened = [("tcp", 22), ("tcp", 25), ("tcp", 8080)]
    findings = [str(one) for one in verify_ports.probe("192.0.2.1", opened, ports, ["198.51.100.1"])]
    assert len(findings) == 2
    assert "25/tcp open from here" in findings[0] and "office is for 203.0.113.0/24, 2001:db8::/32" in findings[0]
    assert "8080/tcp open from here; declared: nobody declares that port" in findings[1]
    assert len(list(verify_ports.probe("192.0.2.1", opened, ports, ["203.0.113.7"]))) == 1


def test_a_rule_for_more_people_opens_a_service_to_them_and_moves_it_nowhere(state: dict[str, Any]) -> None:
    database = {"name": "postgresql", "port": 5432, "addresses": ["localhost", "10.0.0.3"], "sources": ["10.0.0.2/32"]}
    ports = declared([*RULES, {"name": "office", "port": 5432, "sources": ["203.0.113.7"]}], [*LISTENS[:2], database])
    assert ("tcp", 5432) in reachable(ports, ["203.0.113.7"]) & reachable(ports, ["10.0.0.2"])
    listening(state, "0.0.0.0:5432", "postgres")
    only(state, "postgres on 0.0.0.0:5432", wanted=replace(WANTED, ports=ports))


def test_a_port_that_is_for_the_host_alone_is_a_finding_when_the_probe_finds_it() -> None:
    (finding,) = verify_ports.probe("192.0.2.1", [("tcp", 5432)], declared(RULES, LISTENS), [])
    assert finding.declared == "postgresql is for this host alone"
