"""The virtual machines' own logic, as far as it needs none."""

from __future__ import annotations

import io
import subprocess
import tarfile
from pathlib import Path

import pytest

from tests.lab import image, settings
from tests.lab.engine import LabError
from tests.lab.host import can_become_root
from tests.vm import audit_rules, machine
from tests.vm.image import ensure_image


def test_interface_of_every_address_is_short_enough_for_the_kernel_and_its_own() -> None:
    taps = [machine.tap_of(f"10.77.0.{number}") for number in range(256)]
    assert max(map(len, taps)) <= 15 and len(set(taps)) == 256


def test_mac_addresses_are_well_formed_and_differ() -> None:
    found = {machine.mac_of(f"10.77.0.{number}") for number in range(256)}
    assert len(found) == 256 and {len(mac) for mac in found} == {17}


def test_archive_keeps_content_and_mode() -> None:
    packed = machine.archive({"root/.ssh/authorized_keys": (b"key", 0o600)})
    with tarfile.open(fileobj=io.BytesIO(packed)) as tar:
        entry = tar.getmember("root/.ssh/authorized_keys")
        content = tar.extractfile(entry)
        assert content and (content.read(), entry.mode, entry.uid) == (b"key", 0o600, 0)


@pytest.mark.parametrize("release", ["ubuntu-22.04", "debian-12-as-ubuntu-22.04"])
def test_release_that_brings_no_kernel_is_refused_with_those_that_do(release: str) -> None:
    assert release in image.RELEASES
    with pytest.raises(LabError, match=f"cannot be made of {release}.* debian-11, debian-12, debian-13"):
        ensure_image(release)


def test_machines_are_kept_where_down_removes_them() -> None:
    assert machine.MACHINES.is_relative_to(settings.STATE)


@pytest.mark.parametrize(
    ("said", "loaded"),
    [
        (
            "-a always,exit -F dir=/var/lib/docker -F perm=wa -F key=docker",
            "-a always,exit -S all -F dir=/var/lib/docker -F perm=wa -F key=docker",
        ),
        ("-w /etc/sudoers.d/ -p wa -k scope", "-w /etc/sudoers.d -p wa -k scope"),
        (
            "-a always,exit -F arch=b64 -S chmod -S fchmod -F auid>=1000 -F auid!=unset -k perm_mod  # comment",
            "-a exit,always -F arch=b64 -S fchmod,chmod -F auid>=1000 -F auid!=-1 -F key=perm_mod",
        ),
    ],
)
def test_audit_rule_is_the_same_however_it_is_written(said: str, loaded: str) -> None:
    assert audit_rules.canonical(said) == audit_rules.canonical(loaded) is not None


def test_another_audit_rule_is_another() -> None:
    assert audit_rules.canonical("-w /etc/passwd -p wa -k id") != audit_rules.canonical("-w /etc/shadow -p wa -k id")


@pytest.mark.parametrize("line", ["", "# comment", "-D", "-b 8192", "-e 2", "--loginuid-immutable"])
def test_settings_of_the_audit_system_are_no_rules(line: str) -> None:
    assert audit_rules.canonical(line) is None


@pytest.mark.skipif(not can_become_root(), reason="machines are root's processes")
def test_process_that_has_the_number_of_a_dead_machine_is_left_alone(tmp_path: Path) -> None:
    with subprocess.Popen(["sleep", "60"]) as somebody:
        (tmp_path / "pid").write_text(f"{somebody.pid}\n", encoding="utf-8")
        machine.kill(tmp_path)
        assert somebody.poll() is None
        somebody.kill()
    assert not (tmp_path / "pid").exists()
