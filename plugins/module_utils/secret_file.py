"""Secrets that are made once, on the host that needs them, and live in a file only root can read."""

from __future__ import annotations

import os
import secrets
import stat
import string
from typing import Optional

# Letters and digits only: such a secret needs no quoting in a URL, a shell, an ini file or SQL.
ALPHABET = string.ascii_letters + string.digits


class UnsafeSecret(Exception):
    """The file is there and its content must not be used."""


def generate(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


def read(path: str) -> Optional[str]:
    """The secret in the file, None when there is no file."""
    try:
        with open(path, encoding="utf-8") as handle:
            mode = stat.S_IMODE(os.fstat(handle.fileno()).st_mode)
            text = handle.read()
    except (FileNotFoundError, NotADirectoryError):
        return None
    if mode & 0o077:
        raise UnsafeSecret(
            f"{path} has mode {mode:04o}, so others than root may have read the secret in it. "
            "Remove the file to have a new secret made, or set mode 0600 if you trust it."
        )
    secret = text.rstrip("\n")
    if not secret:
        raise UnsafeSecret(f"{path} is empty; remove it to have a new secret made.")
    return secret


def write(path: str, secret: str) -> None:
    """Put the secret there at once and whole, readable by root only."""
    directory = os.path.dirname(path)
    if not os.path.isdir(directory):
        os.makedirs(os.path.dirname(directory) or "/", mode=0o755, exist_ok=True)
        os.mkdir(directory, 0o700)
    temporary = f"{path}.{os.getpid()}"
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as stream:
        stream.write(secret + "\n")
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(temporary, path)
