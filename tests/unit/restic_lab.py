"""A real restic repository whose snapshots have the dates a test gives them, thousands of them in a second.

`restic backup` takes most of a second for each, nearly all of it to make a key of the password. So a test has restic
make the repository and one snapshot, and writes more of them in restic's own format (its design document, "Repository
Layout" and "Keys, Encryption and MAC"): restic checks each against its name and its authentication code as it reads it.
"""

from __future__ import annotations

import base64
import copy
import hashlib
import json
import os
import shutil
import subprocess
from datetime import datetime
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.poly1305 import Poly1305

from tests.unit import packaged

PASSWORD = "a repository's pass'word"


def program() -> str:
    return str(packaged.home("usr/bin/restic", "restic") / "usr/bin/restic")


class Repository:
    """In a directory, with the one snapshot of `path` that the others are copies of."""

    def __init__(self, root: Path, path: Path) -> None:
        self.directory = root / "repository"
        self.environment = {
            "PATH": os.environ["PATH"], "HOME": str(root), "RESTIC_REPOSITORY": str(self.directory),
            "RESTIC_PASSWORD": PASSWORD, "RESTIC_CACHE_DIR": str(root / "cache"), "TZ": "UTC",
        }  # fmt: skip
        self.call("init")
        self.call("backup", "--tag", "template", str(path))
        keys = json.loads(self.call("cat", "masterkey"))
        self._mac = {name: base64.b64decode(value) for name, value in keys["mac"].items()}
        self._key = base64.b64decode(keys["encrypt"])
        self._make_opening_quick(keys)
        (template,) = json.loads(self.call("snapshots", "--json"))
        self.call("forget", template["id"])
        self._template = {name: template[name] for name in ("tree", "paths", "hostname", "username")}

    def copy(self, root: Path) -> Repository:
        """Another of the same content, and with the same keys, below `root`."""
        other = copy.copy(self)
        other.directory = Path(shutil.copytree(self.directory, root / "repository"))
        other.environment = {
            **self.environment, "RESTIC_REPOSITORY": str(other.directory), "RESTIC_CACHE_DIR": str(root / "cache"),
        }  # fmt: skip
        return other

    def call(self, *arguments: str) -> str:
        done = subprocess.run(
            [program(), *arguments], env=self.environment, capture_output=True, text=True, check=False, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def add(self, time: datetime, *tags: str) -> None:
        """One more snapshot, as it would be had restic made it at that time."""
        self._write("snapshots", json.dumps({**self._template, "time": time.isoformat(), "tags": tags}))

    def snapshots(self, *tags: str) -> list[datetime]:
        """The times of those with all the tags, oldest first."""
        found: list[dict[str, Any]] = json.loads(self.call("snapshots", "--json", "--tag", ",".join(tags))) or []
        return sorted(datetime.fromisoformat(snapshot["time"].replace("Z", "+00:00")) for snapshot in found)

    def _write(self, kind: str, text: str) -> None:
        sealed = _seal(text.encode(), self._key, self._mac)
        (self.directory / kind / hashlib.sha256(sealed).hexdigest()).write_bytes(sealed)

    def _make_opening_quick(self, keys: dict[str, Any]) -> None:
        """A key of the same password that takes a thousandth of the work."""
        for old in (self.directory / "keys").iterdir():
            old.unlink()
        salt = os.urandom(64)
        cost = {"N": 1024, "r": 1, "p": 1}
        made = hashlib.scrypt(PASSWORD.encode(), salt=salt, n=cost["N"], r=cost["r"], p=cost["p"], dklen=64)
        data = _seal(json.dumps(keys).encode(), made[:32], {"k": made[32:48], "r": made[48:]})
        text = {"kdf": "scrypt", **cost, "salt": _said(salt), "data": _said(data)}
        written = json.dumps(text).encode()
        (self.directory / "keys" / hashlib.sha256(written).hexdigest()).write_bytes(written)


def _said(data: bytes) -> str:
    return base64.b64encode(data).decode()


def _seal(data: bytes, key: bytes, mac: dict[str, bytes]) -> bytes:
    """AES-256 in counter mode, and over it Poly1305-AES."""
    vector = os.urandom(16)
    encryptor = Cipher(algorithms.AES(key), modes.CTR(vector)).encryptor()
    sealed = encryptor.update(data) + encryptor.finalize()
    # Poly1305-AES masks its sum with the nonce under AES; the library's one-time form is given what comes of that.
    block = Cipher(algorithms.AES(mac["k"]), modes.ECB()).encryptor()
    once = mac["r"] + block.update(vector) + block.finalize()
    return vector + sealed + Poly1305.generate_tag(once, sealed)
