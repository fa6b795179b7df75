"""What decides who gets into a droplet: where sshd is reached, what is refused, and what makes and unmakes an admin."""

from __future__ import annotations

import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import way_in
from ansible_collections.shipshape.droplet.plugins.module_utils.admins import Account, to_admit, to_dismiss

SSH = {"name": "ssh", "port": 22, "protocol": "tcp", "sources": []}
LISTENING = """\
LISTEN 0 128 0.0.0.0:22 0.0.0.0:* users:(("sshd",pid=70,fd=3))
LISTEN 0 511 [::]:443 [::]:* users:(("nginx",pid=90,fd=6),("nginx",pid=91,fd=6))
LISTEN 0 511 127.0.0.1:6379 0.0.0.0:*
"""
PROGRAM = Path(__file__).parents[2] / "roles" / "hardening" / "files" / "way-in"


@pytest.mark.parametrize(
    ("said", "ports"),
    [
        ("port 22\naddressfamily any\nlistenaddress [::]:22\n", [22]),
        ("port 2222\nport 22\n", [22, 2222]),
        ("Listen=0.0.0.0:22 (Stream)\nListen=[::]:22 (Stream)\n", [22]),
        ("Listen=[::]:2222 (Stream)\nListen=[::]:22 (Stream)\n", [22, 2222]),
    ],
)
def test_ports_are_read_from_sshd_and_from_systemds_socket(said: str, ports: list[int]) -> None:
    assert way_in.parse_ports(said) == ports


def test_listeners_are_known_by_port_and_program() -> None:
    assert way_in.listeners(LISTENING) == {22: "sshd", 443: "nginx", 6379: "an unknown program"}


def check(port: int = 22, rules: Any = (SSH,), address: str = "198.51.100.7") -> None:
    way_in.check(list(rules), port, [22], way_in.listeners(LISTENING), address)


def test_what_lets_the_operator_in_is_accepted() -> None:
    check()
    check(rules=[{**SSH, "sources": ["198.51.100.0/24"]}])
    check(rules=[{**SSH, "sources": ["10.0.0.0/8", "198.51.100.7"]}])
    check(port=2222, rules=[{**SSH, "port": 2222}])
    # Not over ssh, so there is no address to cut off.
    check(rules=[{**SSH, "sources": ["192.0.2.0/24"]}], address="")


@pytest.mark.parametrize(
    ("port", "rules", "said"),
    [
        (443, [{**SSH, "port": 443}], "hardening_ssh_port is 443, where nginx listens on this host already"),
        (2222, [SSH], "no rule for sshd's port 2222"),
        (22, [{**SSH, "protocol": "udp"}], "does not contain 198.51.100.7"),
        (22, [{**SSH, "sources": ["192.0.2.0/24"]}], "does not contain 198.51.100.7"),
        (22, [{**SSH, "sources": ["2001:db8::/32"]}], "does not contain 198.51.100.7"),
    ],
)
def test_what_would_shut_the_operator_out_is_refused(port: int, rules: Any, said: str) -> None:
    with pytest.raises(way_in.Refused, match=said):
        check(port, rules)


def test_the_port_sshd_has_already_is_not_taken() -> None:
    check(port=22)


def test_a_new_admin_is_made_without_a_password() -> None:
    do, undo = to_admit("deploy", None)
    command = ["useradd", "--create-home", "--shell", "/bin/bash", "--groups", "sudo", "--password", "*"]
    # PAM shuts out the key, too, once a password is too old; this one nobody can renew.
    command += ["--key", "PASS_MAX_DAYS=99999", "--key", "PASS_MIN_DAYS=0", "--inactive", "-1", "--key", "UMASK=027"]
    assert do == [[*command, "deploy"]]
    assert undo == []


def test_an_admin_who_lacks_nothing_is_let_alone() -> None:
    assert to_admit("deploy", Account("/home/deploy", "/bin/zsh", ("sudo",), False)) == ([], [])
    assert to_admit("root", Account("/root", "/bin/bash", (), False)) == ([], [])


def test_what_an_existing_account_is_given_can_be_taken_from_it_again() -> None:
    do, undo = to_admit("deploy", Account("/home/deploy", "/usr/sbin/nologin", ("www",), True))
    assert [command[1:] for command in do] == [
        ["--append", "--groups", "sudo", "deploy"],
        ["--shell", "/bin/bash", "deploy"],
        ["--expiredate", "", "deploy"],
    ]
    assert undo == [
        ["gpasswd", "--delete", "deploy", "sudo"],
        ["usermod", "--shell", "/usr/sbin/nologin", "deploy"],
        ["usermod", "--expiredate", "1", "deploy"],
    ]


def test_the_group_of_docker_is_given_and_taken_only_where_the_inventory_says_so() -> None:
    inside = Account("/home/deploy", "/bin/bash", ("sudo", "docker"), False)
    outside = Account("/home/deploy", "/bin/bash", ("sudo",), False)
    add, delete = (["gpasswd", verb, "deploy", "docker"] for verb in ("--add", "--delete"))
    assert to_admit("deploy", None, ["docker"])[0][0][4:6] == ["--groups", "sudo,docker"]
    assert to_admit("deploy", outside, ["docker"]) == ([add], [delete])
    assert to_admit("deploy", inside, []) == ([delete], [add])
    assert to_admit("deploy", inside, ["docker"]) == to_admit("deploy", inside) == ([], [])
    assert delete in to_dismiss("deploy", inside)[0]


def test_a_former_admin_loses_shell_and_group_and_root_never_does() -> None:
    do, undo = to_dismiss("leaver", Account("/home/leaver", "/bin/bash", ("sudo", "www"), False))
    assert do[0][:2] == ["usermod", "--lock"] and ["gpasswd", "--delete", "leaver", "sudo"] in do
    assert ["gpasswd", "--add", "leaver", "sudo"] in undo
    assert to_dismiss("root", Account("/root", "/bin/bash", (), False)) == ([], [])
    assert to_dismiss("nobody-here", None) == ([], [])


def test_what_is_kept_is_what_was_there_and_names_all_that_may_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way_in, "STATE", str(tmp_path / "state"))
    firewall = tmp_path / "ufw"
    firewall.mkdir()
    (firewall / "user.rules").write_text("rules", encoding="utf-8")
    monkeypatch.setattr(way_in, "TREES", (str(firewall), str(tmp_path / "missing")))
    (tmp_path / "state").mkdir()
    present, absent, folder = tmp_path / "present", tmp_path / "absent", tmp_path / ".ssh"
    present.write_text("before", encoding="utf-8")
    folder.mkdir()
    (folder / "known_hosts").write_text("theirs", encoding="utf-8")
    way_in.keep([str(present), str(absent), str(folder)])
    with tarfile.open(tmp_path / "state" / "before.tar") as archive:
        names = {f"/{name}" for name in archive.getnames()}
    assert names == {str(present), str(folder), str(firewall), f"{firewall}/user.rules"}
    assert way_in.read("added").splitlines() == [str(absent)]


def test_the_droplets_own_program_is_a_shell_script_that_parses() -> None:
    subprocess.run(["sh", "-n", str(PROGRAM)], check=True)


def test_nothing_is_reverted_while_a_change_is_being_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(way_in, "STATE", str(tmp_path))
    attempt = ["flock", "--nonblock", str(tmp_path / "lock"), "true"]
    with way_in.locked():
        assert subprocess.run(attempt, check=False).returncode == 1
    assert subprocess.run(attempt, check=False).returncode == 0
