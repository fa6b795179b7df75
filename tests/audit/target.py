"""The audited machine: root's commands on it over SSH, as the admin that site.yml has let in."""

from __future__ import annotations

import shlex
import subprocess
from dataclasses import dataclass

from tests.audit.model import AuditError
from tests.lab import settings


@dataclass(frozen=True)
class Target:
    address: str
    user: str = "deploy"
    port: int = 22
    #: Seconds that one script may take.
    patience: int = 600

    def root(self, script: str, stdin: bytes = b"") -> bytes:
        """What a shell script of root's prints; the script reads `stdin`."""
        options = (
            f"IdentityFile={settings.SSH_KEY}",
            f"UserKnownHostsFile={settings.KNOWN_HOSTS}",
            "StrictHostKeyChecking=accept-new",
            "IdentitiesOnly=yes",
            "BatchMode=yes",
            "ConnectTimeout=20",
        )
        command = ["ssh", *(f"-o{option}" for option in options), "-p", str(self.port), f"{self.user}@{self.address}"]
        command.append(f"sudo -n sh -eu -c {shlex.quote(script)}")
        result = subprocess.run(command, input=stdin, capture_output=True, check=False, timeout=self.patience)
        if result.returncode != 0:
            words = (result.stderr or result.stdout).decode(errors="replace").strip()
            raise AuditError(f"on {self.address}, this failed ({result.returncode}):\n{script}\n{words[-2000:]}")
        return result.stdout

    def first_available(self, *packages: str) -> str:
        """The first of these names that the machine's sources have: packages are renamed from release to release."""
        known = self.root("apt-cache pkgnames").decode().split()
        found = next((package for package in packages if package in known), "")
        if not found:
            raise AuditError(f"{self.address} has no source for any of {', '.join(packages)}")
        return found

    def install(self, *packages: str) -> None:
        names = shlex.join(packages)
        self.root(
            "export DEBIAN_FRONTEND=noninteractive; "
            f"apt-get -qq -o DPkg::Lock::Timeout=300 install --no-install-recommends {names} >/dev/null"
        )
