"""The plan from declared ports to ufw commands."""

from __future__ import annotations

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils.ufw import Rule, declared, parse_rules, plan

DEFAULTS = 'IPV6=yes\nDEFAULT_INPUT_POLICY="DROP"\nDEFAULT_OUTPUT_POLICY="ACCEPT"\n'
SSH = Rule("tcp", "22", "")
COMMENT = b"shipshape: ssh".hex()


def test_a_declared_source_loses_host_bits_and_a_single_address_its_mask() -> None:
    rules = declared(
        [{"name": "postgresql", "port": 5432, "protocol": "tcp", "sources": ["10.0.0.7/24", "10.1.0.4/32", "fd00::1"]}]
    )
    assert [rule.source for rule in rules] == ["10.0.0.0/24", "10.1.0.4", "fd00::1"]


def test_ufws_own_file_is_read_with_comments() -> None:
    text = (
        f"### tuple ### allow tcp 22 0.0.0.0/0 any 0.0.0.0/0 in comment={COMMENT}\n"
        "-A ufw-user-input -p tcp --dport 22 -j ACCEPT\n"
        "### tuple ### allow tcp 5432 0.0.0.0/0 any 10.0.0.0/24 in\n"
        "### tuple ### limit any 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0\n"
    )
    assert parse_rules(text) == {
        SSH: "shipshape: ssh",
        Rule("tcp", "5432", "10.0.0.0/24"): "",
        "limit any 22 0.0.0.0/0 any 0.0.0.0/0 in_eth0": "",
    }


def test_nothing_to_do_when_the_rules_are_in_force() -> None:
    assert plan({SSH: "shipshape: ssh"}, {SSH: "shipshape: ssh"}, DEFAULTS, True) == []


def test_a_bare_host_gets_policies_and_rules_before_ufw_is_turned_on() -> None:
    commands = plan({SSH: "shipshape: ssh"}, {}, "", False)
    assert commands == [
        ["default", "deny", "incoming"],
        ["default", "allow", "outgoing"],
        ["allow", "proto", "tcp", "from", "any", "to", "any", "port", "22", "comment", "shipshape: ssh"],
        ["--force", "enable"],
    ]


def test_only_rules_with_our_mark_are_deleted_and_only_after_the_additions() -> None:
    present = {Rule("tcp", "8080", ""): "shipshape: old", Rule("tcp", "25", ""): "somebody's", "limit any 22": ""}
    commands = plan({SSH: "shipshape: ssh"}, present, DEFAULTS, True)
    assert commands[0][:1] == ["allow"]
    assert commands[1:] == [["delete", "allow", "proto", "tcp", "from", "any", "to", "any", "port", "8080"]]


def test_a_source_that_is_no_address_is_refused() -> None:
    with pytest.raises(ValueError, match=r"example\.com"):
        declared([{"name": "x", "port": 1, "protocol": "tcp", "sources": ["example.com"]}])
