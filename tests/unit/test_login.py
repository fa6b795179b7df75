"""What is read of a droplet in the breath of the login."""

from __future__ import annotations

import subprocess
from typing import Any

import pytest
from ansible.errors import AnsibleConnectionFailure
from ansible_collections.shipshape.droplet.plugins.action.login import LOOK, ActionModule, seen

NOTED = {"environment": "production", "primary": "db1 2", "services": "/etc/redis/redis-cache.conf"}
UBUNTU = """environment=production
primary=db1 2
services=/etc/redis/redis-cache.conf
memory=MemTotal: 2025336 kB
processors=2
root=ext4
rotational=1
VERSION_ID="22.04"
VERSION_CODENAME=jammy
ID=ubuntu
debian=bookworm/sid
virtualization=kvm
route4=192.0.2.1 via 203.0.113.1 dev eth0 src 203.0.113.9 uid 0 \\ cache
route6=
nameservers=127.0.0.53 1.1.1.1
"""


def facts(said: str) -> dict[str, Any]:
    found: dict[str, Any] = seen(said)[1]
    return found


def test_facts_have_the_names_and_units_that_setup_gives_them() -> None:
    assert seen(UBUNTU) == (
        NOTED,
        {
            "memtotal_mb": 1977,
            "processor_vcpus": 2,
            "mounts": [{"mount": "/", "fstype": "ext4"}],
            "distribution": "Ubuntu",
            "distribution_version": "22.04",
            "distribution_major_version": "22",
            "distribution_release": "jammy",
            "virtualization_type": "kvm",
            "virtualization_role": "guest",
            "default_ipv4": {"gateway": "203.0.113.1", "interface": "eth0", "address": "203.0.113.9"},
            "default_ipv6": {},
            "dns": {"nameservers": ["127.0.0.53", "1.1.1.1"]},
            "data_disk": {"rotational": "1"},
        },
    )
    assert facts(UBUNTU.replace("rotational=1", "rotational="))["data_disk"] == {"rotational": ""}


def test_debian_has_its_point_release_in_a_file_of_its_own() -> None:
    debian = UBUNTU.replace("ID=ubuntu", "ID=debian").replace('VERSION_ID="22.04"', 'VERSION_ID="12"')
    assert facts(debian.replace("debian=bookworm/sid", "debian=12.11"))["distribution_version"] == "12.11"
    assert facts(debian)["distribution_version"] == "12"
    assert facts(debian)["distribution"] == "Debian"


def test_an_address_of_the_sixth_version_is_found_by_its_route() -> None:
    line = "route6=2001:db8::1 from :: via fe80::1 dev eth0 proto ra src 2001:db8:1::9 metric 1024 pref medium"
    found = facts(UBUNTU.replace("route6=", line))["default_ipv6"]
    assert found == {"gateway": "fe80::1", "interface": "eth0", "address": "2001:db8:1::9"}


def test_a_machine_of_its_own_is_nobodys_guest() -> None:
    found = facts(UBUNTU.replace("virtualization=kvm", "virtualization=none"))
    assert (found["virtualization_type"], found["virtualization_role"]) == ("NA", "NA")


@pytest.mark.parametrize(
    ("line", "instead"),
    [
        ("root=ext4", "root="),
        ("processors=2", "processors=undefined"),
        ("ID=ubuntu\n", "ID=fedora\n"),
        ("VERSION_CODENAME=jammy\n", ""),
        ("virtualization=kvm", "virtualization="),
        (UBUNTU, UBUNTU[: UBUNTU.index("memory")] + "memory=\n"),
    ],
)
def test_a_droplet_that_cannot_say_all_of_them_leaves_them_to_setup(line: str, instead: str) -> None:
    assert line in UBUNTU
    assert seen(UBUNTU.replace(line, instead)) == (NOTED, {})


def test_the_question_is_answered_by_a_shell() -> None:
    said = subprocess.run(["sh", "-c", LOOK], capture_output=True, text=True, check=True).stdout
    words = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
    assert words["environment"] == words["primary"] == words["services"] == ""
    assert words["memory"].endswith("kB") and int(words["processors"]) >= 1
    assert words["root"] and words["rotational"] in ("", "0", "1")
    assert words["ID"] and words["VERSION_ID"]


class Droplet:
    """A connection to a droplet that says one thing at each port; who knocks where is noted."""

    def __init__(self, ports: dict[int, str]) -> None:
        self.ports = ports
        self.options: dict[str, Any] = {}
        self.knocks: list[tuple[str, int]] = []

    def set_option(self, name: str, value: Any) -> None:
        self.options[name] = value

    def exec_command(self, _command: str, sudoable: bool) -> tuple[int, bytes, bytes]:
        port = int(self.options["port"])
        self.knocks.append((str(self.options["remote_user"]), port))
        if said := self.ports[port]:
            raise AnsibleConnectionFailure(said)
        return 0, UBUNTU.encode(), b""


def find(droplet: Droplet, wait: bool) -> dict[str, Any]:
    module = object.__new__(ActionModule)
    found: dict[str, Any] = module._find(droplet, ["deploy", "root"], [2222, 22], wait=wait, again=False)[0]
    return found


def test_nobody_knocks_again_at_a_droplet_that_does_not_answer_and_is_not_waited_for() -> None:
    gone = Droplet({2222: "Connection timed out", 22: ""})
    assert find(gone, wait=False) == {} and gone.knocks == [("deploy", 2222)]
    assert find(gone, wait=True)["port"] == 22


def test_a_droplet_that_refuses_one_port_is_asked_at_the_other() -> None:
    moved = Droplet({2222: "Connection refused", 22: ""})
    assert find(moved, wait=False)["primary"] == "db1 2"
    assert moved.knocks == [("deploy", 2222), ("deploy", 22)]


def test_one_who_may_not_read_the_note_has_not_seen_that_there_is_none() -> None:
    class Stranger(Droplet):
        def exec_command(self, command: str, sudoable: bool) -> tuple[int, bytes, bytes]:
            if self.options["remote_user"] == "root":
                raise AnsibleConnectionFailure("Permission denied (publickey).")
            return (1, b"", b"a password is required") if "sudo" in command else super().exec_command(command, sudoable)

    found = find(Stranger({2222: "", 22: ""}), wait=True)
    assert (found["user"], found["primary"]) == ("deploy", None)
