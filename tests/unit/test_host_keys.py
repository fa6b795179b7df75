"""Host keys: which are made anew, with real ones of ssh-keygen, and what the operator is told of it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import host_keys


class Module:
    """As much of AnsibleModule as is asked for."""

    def __init__(self, check_mode: bool = False) -> None:
        self.check_mode = check_mode

    def get_bin_path(self, name: str) -> str:
        return name

    def run_command(self, command: list[str], check_rc: bool = False) -> tuple[int, str, str]:
        done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=check_rc)
        return done.returncode, done.stdout, done.stderr


def keys(folder: Path, *made: tuple[str, int]) -> None:
    for kind, bits in made:
        path = folder / f"ssh_host_{kind}_key"
        subprocess.run(["ssh-keygen", "-q", "-t", kind, "-b", str(bits), "-N", "", "-f", path], check=True)


def due(folder: Path) -> list[tuple[str, int]]:
    module: Any = Module()
    return [(renewal.kind, renewal.bits_before) for renewal in host_keys.due(module, str(folder))]


def test_strong_keys_stay(tmp_path: Path) -> None:
    keys(tmp_path, ("ed25519", 256), ("rsa", 3072))
    assert due(tmp_path) == []


def test_a_short_rsa_key_is_due(tmp_path: Path) -> None:
    keys(tmp_path, ("ed25519", 256), ("rsa", 2048))
    assert due(tmp_path) == [("rsa", 2048)]


def test_a_missing_key_is_due_and_so_is_one_cut_off_while_it_was_made(tmp_path: Path) -> None:
    keys(tmp_path, ("rsa", 3072))
    (tmp_path / "ssh_host_rsa_key").write_text("")
    assert due(tmp_path) == [("ed25519", 0), ("rsa", 0)]


def test_a_public_half_alone_is_no_key(tmp_path: Path) -> None:
    keys(tmp_path, ("ed25519", 256), ("rsa", 3072))
    (tmp_path / "ssh_host_ed25519_key").unlink()
    assert due(tmp_path) == [("ed25519", 0)]


@pytest.mark.parametrize("kind", ["ed25519", "rsa"])
def test_a_new_key_is_whole_and_strong(kind: str, tmp_path: Path) -> None:
    module: Any = Module()
    specs, texts = host_keys.files(module, [host_keys.Renewal(kind, str(tmp_path / "k"), 0)], "ssh.service")
    assert [(spec["mode"], spec["secret"], spec["reload"]) for spec in specs] == [
        ("0600", True, "ssh.service"),
        ("0644", False, None),
    ]
    private = tmp_path / "private"
    private.touch(mode=0o600)
    private.write_text(texts[specs[0]["path"]])
    derived = subprocess.run(["ssh-keygen", "-y", "-f", private], capture_output=True, text=True, check=True).stdout
    assert derived.split()[:2] == texts[specs[1]["path"]].split()[:2]


def test_check_mode_makes_no_key() -> None:
    module: Any = Module(check_mode=True)
    _specs, texts = host_keys.files(module, [host_keys.Renewal("rsa", "/k", 2048)], "ssh.service")
    assert set(texts.values()) == {host_keys.UNKNOWN}


def test_the_operator_is_told_of_a_key_that_clients_may_know() -> None:
    weak = host_keys.Renewal("rsa", "/etc/ssh/ssh_host_rsa_key", 1024)
    assert host_keys.notice([host_keys.Renewal("ed25519", "/k", 0)]) == ""
    assert "ssh_host_rsa_key (1024 bits)" in host_keys.notice([weak]) and "ed25519 stays" in host_keys.notice([weak])
    assert "ed25519 stays" not in host_keys.notice([weak, host_keys.Renewal("ed25519", "/k", 0)])
