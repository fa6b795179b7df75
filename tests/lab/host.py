"""The controller: what the lab may install on it, how it becomes root there, and where droplets find it."""

from __future__ import annotations

import os
import shlex
import shutil
import socket
import subprocess
from collections.abc import Sequence

from tests.lab.engine import LabError, say


def can_become_root() -> bool:
    if os.geteuid() == 0:
        return True
    return shutil.which("sudo") is not None and (
        subprocess.run(["sudo", "--non-interactive", "true"], capture_output=True, check=False).returncode == 0
    )


def privileged(command: Sequence[str]) -> list[str]:
    """The command as root runs it; asks for no password, because nobody may be there to type it."""
    if os.geteuid() == 0:
        return list(command)
    if can_become_root():
        return ["sudo", "--non-interactive", *command]
    raise LabError(f"this needs root, and sudo asks for a password. Type:\n    sudo {shlex.join(command)}")


def seen_from(droplet_address: str) -> str:
    """The address at which a droplet reaches this machine."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as towards:
        towards.connect((droplet_address, 9))
        return str(towards.getsockname()[0])


def ensure_program(program: str, packages: Sequence[str]) -> None:
    if shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"):
        return
    say(f"installing {', '.join(packages)}")
    install = ["apt-get", "install", "--yes", "--no-install-recommends", *packages]
    if not can_become_root():
        raise LabError(f"`{program}` is missing. Type:\n    sudo apt-get update && sudo {shlex.join(install)}")
    for command in (["apt-get", "update"], install):
        result = subprocess.run(
            privileged(["env", "DEBIAN_FRONTEND=noninteractive", *command]),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise LabError(f"`{shlex.join(command)}` failed:\n{result.stderr.strip()}")
