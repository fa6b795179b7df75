"""What an upgrade plans, which services run on replaced files, and whether a droplet is as well as before."""

from __future__ import annotations

import pytest
from ansible_collections.shipshape.droplet.plugins.modules import droplet_health, packages, upgrade

SIMULATION = """\
NOTE: This is only a simulation!
Inst libssl3 [3.0.15-1] (3.0.17-1 Debian-Security:12/stable-security [amd64]) []
Inst docker.io [20.10.24+dfsg1-1+b3] (99:20.10 test:bookworm [amd64])
Inst linux-image-6.1.0-40-amd64 (6.1.153-1 Debian:12.12/stable [amd64])
Conf libssl3 (3.0.17-1 Debian-Security:12/stable-security [amd64])
"""
MAPS = """\
55d0a0-55d0b0 r-xp 00000000 fe:01 1234                    /usr/sbin/nginx
7f00a0-7f00b0 r-xp 00000000 fe:01 5678                    /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)
7f00c0-7f00d0 rw-s 00000000 00:01 9                       /dev/zero (deleted)
7f00e0-7f00f0 rw-s 00000000 00:05 7                       /memfd:shared (deleted)
7f0100-7f0110 rw-p 00000000 00:00 0
"""
UNITS = """\
Id=nginx.service
ActiveState=active
UnitFileState=enabled

Id=shop.service
ActiveState=failed
UnitFileState=enabled

Id=apt-daily.service
ActiveState=inactive
UnitFileState=static

Id=postgresql@15-main.service
ActiveState=active
UnitFileState=enabled-runtime
"""


def test_a_simulation_is_read_with_old_and_new_version() -> None:
    assert upgrade.planned(SIMULATION) == {
        "libssl3": "3.0.15-1 -> 3.0.17-1",
        "docker.io": "20.10.24+dfsg1-1+b3 -> 99:20.10",
        "linux-image-6.1.0-40-amd64": "6.1.153-1",
    }


def test_only_a_replaced_program_or_library_makes_a_process_outdated() -> None:
    assert upgrade.replaced_files(MAPS) == {"/usr/lib/x86_64-linux-gnu/libssl.so.3"}
    assert upgrade.replaced_files("") == set()


@pytest.mark.parametrize(
    ("cgroup", "unit"),
    [
        ("0::/system.slice/nginx.service\n", "nginx.service"),
        ("12:pids:/x\n1:name=systemd:/system.slice/postgresql@15-main.service\n0::/\n", "postgresql@15-main.service"),
        ("0::/system.slice/docker-0123456789ab.scope\n", ""),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", ""),
        ("0::/user.slice/user-1000.slice/user@1000.service\n", ""),
        ("", ""),
    ],
)  # fmt: skip
def test_a_process_belongs_to_a_service_and_a_containers_or_a_sessions_to_none(cgroup: str, unit: str) -> None:
    assert upgrade.unit_of(cgroup) == unit


@pytest.mark.parametrize("unit", ["dbus.service", "systemd-logind.service", "getty@tty1.service", "init.scope"])
def test_what_would_cut_everybody_off_waits_for_a_reboot(unit: str) -> None:
    assert upgrade.NOT_RESTARTED.fullmatch(unit)
    assert not upgrade.NOT_RESTARTED.fullmatch("nginx.service")


def test_services_that_start_at_boot_and_those_that_failed_count() -> None:
    assert droplet_health.services(UNITS) == {
        "service nginx.service": "",
        "service shop.service": "failed",
        "service postgresql@15-main.service": "",
    }


def test_what_was_well_and_is_not_is_named_with_what_was_found_and_what_was_ill_before_is_not_asked_for() -> None:
    found = {"site shop.test": "HTTP 502", "app shop": "", "app old": "refused"}
    assert droplet_health.missing(["site shop.test", "app shop", "service nginx.service"], found) == {
        "site shop.test": "HTTP 502",
        "service nginx.service": "not running",
    }


def test_only_an_installed_package_without_a_hold_is_held() -> None:
    states = {"docker.io": "ii", "containerd": "hi", "runc": "rc"}
    assert packages.packages_to_hold(["docker.io", "containerd", "runc", "docker-ce"], states) == ["docker.io"]
    assert packages.missing_packages(["docker.io", "containerd", "runc"], states) == ["runc"]
