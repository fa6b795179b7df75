"""One program out of a release archive, and what is refused before anything is replaced."""

from __future__ import annotations

import hashlib
import io
import os
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.modules import binary


class Failed(Exception):
    """What fail_json was told."""


class Module:
    """As much of AnsibleModule as the functions use, with files in place of URLs."""

    check_mode = False
    _diff = True

    def __init__(self, tmp_path: Path, **params: Any) -> None:
        self.root = tmp_path
        self.params = {
            "name": "tool", "version": "1.0", "url": "http://x/tool_{processor}.tar.gz", "checksums": {},
            "checksums_url": "http://x/sums.txt", "path": str(tmp_path / "bin-tool"),
            "directory": str(tmp_path / "opt"), "test": ["version"], "restart": "", **params,
        }  # fmt: skip

    def fail_json(self, msg: str) -> None:
        raise Failed(msg)

    def run_command(self, words: list[str], **_: Any) -> tuple[int, str, str]:
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout, done.stderr


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    monkeypatch.setattr(binary, "open_url", lambda _module, url: io.BytesIO(files[url]))
    monkeypatch.setattr(binary, "processor", lambda: "amd64")
    return files


def release(files: dict[str, bytes], program: str, name: str = "tool") -> str:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as bundle:
        for member, text in (("LICENSE.md", "free"), (f"../../{name}", program)):
            info = tarfile.TarInfo(member)
            info.size, info.mode = len(text), 0o4777
            bundle.addfile(info, io.BytesIO(text.encode()))
    files["http://x/tool_amd64.tar.gz"] = buffer.getvalue()
    digest = hashlib.sha256(buffer.getvalue()).hexdigest()
    files["http://x/sums.txt"] = f"{'0' * 64}  other.tar.gz\n{digest}  ./tool_amd64.tar.gz\n".encode()
    return digest


def test_a_release_is_installed_once_and_its_predecessor_stays(tmp_path: Path, served: dict[str, bytes]) -> None:
    for version in ("1.0", "2.0", "3.0"):
        digest = release(served, f"#!/bin/sh\necho {version}\n")
        result = binary.converge(Module(tmp_path, version=version))
        assert (result["changed"], result["checksum"]) == (True, digest)
        served.clear()  # nothing more is fetched
        assert binary.converge(Module(tmp_path, version=version))["changed"] is False
    link = tmp_path / "bin-tool"
    assert subprocess.run([link], capture_output=True, text=True, check=True).stdout == "3.0\n"
    assert oct(link.stat().st_mode & 0o7777) == "0o755"
    assert sorted(os.listdir(tmp_path / "opt")) == ["2.0", "3.0"]
    # Back to the one before, without the network.
    assert binary.converge(Module(tmp_path, version="2.0"))["changed"] is True
    assert subprocess.run([link], capture_output=True, text=True, check=True).stdout == "2.0\n"


@pytest.mark.parametrize(
    ("params", "program", "name", "message"),
    [
        ({"checksums": {"amd64": "ab" * 32}}, "#!/bin/sh\n", "tool", r"SHA-256 is [0-9a-f]{64}, wanted is (ab){32}"),
        ({"checksums_url": ""}, "#!/bin/sh\n", "tool", "give a checksum, or where checksums are published"),
        ({}, "#!/bin/sh\n", "other", "holds no program tool"),
        ({}, "#!/bin/sh\necho no such instruction >&2; exit 3\n", "tool", "does not run here .*no such instruction"),
    ],
)
def test_what_is_not_the_release_leaves_the_old_one(
    tmp_path: Path, served: dict[str, bytes], params: dict[str, Any], program: str, name: str, message: str
) -> None:
    release(served, "#!/bin/sh\necho old\n")
    binary.converge(Module(tmp_path))
    release(served, program, name)
    with pytest.raises(Failed, match=message):
        binary.converge(Module(tmp_path, version="2.0", **params))
    assert subprocess.run([tmp_path / "bin-tool"], capture_output=True, text=True, check=True).stdout == "old\n"
    assert os.listdir(tmp_path / "opt") == ["1.0"]


def test_check_mode_fetches_nothing(tmp_path: Path, served: dict[str, bytes]) -> None:
    module = Module(tmp_path)
    module.check_mode = True
    assert binary.converge(module)["changed"] is True
    assert os.listdir(tmp_path) == []
