"""What the verification asks the controller's side: whom to probe, and as whom."""

from __future__ import annotations

from typing import Any

from ansible_collections.shipshape.droplet.plugins.action import verify
from ansible_collections.shipshape.droplet.plugins.plugin_utils.declared_ports import declared
from ansible_collections.shipshape.droplet.plugins.plugin_utils.verify_finding import Finding


def state(**commands: str) -> dict[str, Any]:
    return {"commands": {name: {"code": 0, "out": out, "err": ""} for name, out in commands.items()}}


def test_the_droplet_is_probed_where_the_inventory_finds_it_and_at_its_public_addresses() -> None:
    said = (
        "2: eth0    inet 10.0.0.2/16 brd 10.0.255.255 scope global eth0\n"
        "2: eth0    inet6 2a03:b0c0:2::f1/64 scope global \\       valid_lft forever\n"
        "3: docker0    inet 172.17.0.1/16 scope global docker0\n"
    )
    assert verify.addresses("192.0.2.7", state(addresses=said)) == ["192.0.2.7", "2a03:b0c0:2::f1"]
    assert verify.addresses("", state(addresses=said)) == []


def test_only_who_is_logged_in_counts_as_caller() -> None:
    said = (
        "0      0      192.0.2.7:2222 203.0.113.5:51884\n"
        "0      0      [::ffff:192.0.2.7]:2222 [::ffff:203.0.113.6]:51884\n"
        "0      0      192.0.2.7:5432 10.0.0.9:40000\n"
    )
    ports = declared([{"name": "ssh", "port": 2222}])
    assert verify.callers(state(connections=said), ports) == ["203.0.113.5", "203.0.113.6"]


def test_findings_fail_and_stand_in_one_numbered_list() -> None:
    told = verify.result([Finding("a", "b", "c", "Do d"), Finding("e", "f", "g")], {"192.0.2.7": "open: 22/tcp"})
    assert told["failed"] and not told["changed"]
    lines = told["msg"].splitlines()
    assert lines[0] == "2 findings; nothing was changed."
    assert lines[1:] == [
        "  1. a: found b; declared: c. Do d",
        "  2. e: found f; declared: g",
        "Probe: 192.0.2.7 open: 22/tcp",
    ]
    assert "failed" not in verify.result([], {})
