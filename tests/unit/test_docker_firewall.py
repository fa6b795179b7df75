"""The rules for what is forwarded into containers."""

from __future__ import annotations

import pytest
from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.filter.docker import docker_firewall
from ansible_collections.shipshape.droplet.plugins.plugin_utils.docker_firewall import restore, rules

OFFICE = {"name": "office", "port": 8080, "protocol": "tcp", "sources": ["198.51.100.7/24", "2001:db8::1"]}
WORLD = {"name": "dns", "port": 53, "protocol": "udp", "sources": []}
ASKED = "-m conntrack --ctstate DNAT --ctorigdstport {} --ctdir ORIGINAL -j RETURN"


def test_without_a_declared_port_nothing_from_outside_reaches_a_container() -> None:
    assert rules([], 4) == [
        "-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN",
        "-i docker+ -j RETURN",
        "-i br-+ -j RETURN",
        "-m conntrack --ctstate DNAT -j DROP",
        "-o docker+ -j DROP",
        "-o br-+ -j DROP",
    ]


def test_a_port_for_the_world_is_open_over_both_protocols_by_the_number_that_was_asked_for() -> None:
    for version in (4, 6):
        assert f"-p udp {ASKED.format(53)}" in rules([WORLD], version)


def test_a_port_for_listed_sources_is_open_to_these_alone_each_in_its_own_protocol() -> None:
    v4, v6 = rules([OFFICE], 4), rules([OFFICE], 6)
    assert [rule for rule in v4 if "8080" in rule] == [f"-s 198.51.100.0/24 -p tcp {ASKED.format(8080)}"]
    assert [rule for rule in v6 if "8080" in rule] == [f"-s 2001:db8::1/128 -p tcp {ASKED.format(8080)}"]


def test_a_port_for_sources_of_the_other_protocol_only_stays_closed() -> None:
    assert rules([{**OFFICE, "sources": ["2001:db8::1"]}], 4) == rules([], 4)


def test_the_file_replaces_our_chain_and_names_no_other() -> None:
    text = restore([OFFICE], 4)
    assert text.splitlines()[1:3] == ["*filter", ":SHIPSHAPE-DOCKER - [0:0]"]
    assert all(line.startswith("-A SHIPSHAPE-DOCKER ") for line in text.splitlines()[3:-1])
    assert text.endswith("\nCOMMIT\n")


def test_a_source_that_is_no_address_is_refused_in_words() -> None:
    with pytest.raises(AnsibleFilterError, match=r"hardening_firewall_rules.*office\.example"):
        docker_firewall([{**OFFICE, "sources": ["office.example"]}], 4)
