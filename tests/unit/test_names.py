"""Which names are names, and which port follows from one."""

from __future__ import annotations

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.names import app_port, is_hostname


def test_ports_follow_from_names_and_stay_out_of_the_ephemeral_range() -> None:
    assert app_port("malar-api") == 22062
    ports = {app_port(f"app-{number}") for number in range(500)}
    assert len(ports) > 450
    assert all(20000 <= port < 30000 and port % 2 == 0 for port in ports)


@pytest.mark.parametrize("name", ["a.in", "x-1.malar.in", "xn--blte-1ra.in", "A.In", ".".join(["a" * 62] * 4) + ".a"])
def test_a_hostname_is_one(name: str) -> None:
    assert is_hostname(name)


@pytest.mark.parametrize(
    "name",
    [
        "a",
        "-a.in",
        "a-.in",
        "a..in",
        ".a.in",
        "a.in.",
        "a.1",
        "a_b.in",
        "a b.in",
        "ü.in",
        ".".join(["a" * 62] * 4) + ".ab",
    ],
)
def test_what_is_no_hostname_is_none(name: str) -> None:
    assert not is_hostname(name)
