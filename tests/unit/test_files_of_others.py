"""Files that are somebody else's: of some a line is ours, and others are ours only while nobody has edited them."""

from __future__ import annotations

import hashlib

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import file_entry, package_files

FSTAB = b"/dev/vda1 / ext4 defaults 0 1\n"
OURS = b"tmpfs /dev/shm tmpfs noexec,x-shipshape.noexec 0 0\n"


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (FSTAB, FSTAB + OURS),
        (FSTAB.rstrip(b"\n"), FSTAB + OURS),
        (b"", OURS),
        (FSTAB + OURS, FSTAB + OURS),
        (b"# mine\n" + OURS.replace(b"noexec,", b"") + FSTAB, b"# mine\n" + OURS + FSTAB),
        (OURS + FSTAB + OURS, OURS + FSTAB),
    ],
)
def test_lines_of_ours_stand_once_in_somebodys_file_and_all_else_stays(before: bytes, after: bytes) -> None:
    assert file_entry.own_lines(before, "x-shipshape.noexec", OURS) == after
    assert file_entry.own_lines(after, "x-shipshape.noexec", OURS) == after


def test_lines_of_ours_go_and_leave_what_was_there() -> None:
    assert file_entry.own_lines(FSTAB + OURS + b"# end", "x-shipshape.noexec", b"") == FSTAB + b"# end"


class Module:
    """dpkg's answer to what configuration files its packages have brought."""

    def __init__(self, listing: str) -> None:
        self.listing = listing

    def run_command(self, command: list[str]) -> tuple[int, str, str]:
        assert command[0] == "dpkg-query"
        return 0, self.listing, ""


def md5(text: bytes) -> str:
    return hashlib.md5(text).hexdigest()


def test_a_file_that_dpkg_or_ucf_knows_is_as_packaged(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    hashes = tmp_path / "hashfile"  # type: ignore[operator]
    hashes.write_text(f"{md5(b'sshd')}  /etc/ssh/sshd_config\n")
    monkeypatch.setattr(package_files, "UCF_HASHES", str(hashes))
    module = Module(f"\n /etc/bash.bashrc {md5(b'bash')}\n /etc/old {md5(b'old')} obsolete\n")
    assert package_files.is_as_packaged(module, "/etc/bash.bashrc", b"bash")
    assert package_files.is_as_packaged(module, "/etc/ssh/sshd_config", b"sshd")
    assert package_files.is_as_packaged(module, "/etc/old", b"old")
    assert not package_files.is_as_packaged(module, "/etc/bash.bashrc", b"bash, edited")
    assert not package_files.is_as_packaged(module, "/etc/bash.bashrc", b"sshd")
    assert not package_files.is_as_packaged(module, "/etc/none", b"bash")
