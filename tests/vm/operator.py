"""An operator with an inventory for one machine, which is proxy, app server and database at once."""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import yaml

from tests.lab import settings
from tests.site.system import BIN, PROJECT, Run, descendants, environment
from tests.vm.machine import Machine

ADMIN = "deploy"
#: A controller that is busy with the emulation as well takes its time.
PLAYBOOK_TIMEOUT = 3600
LOCAL_BUCKET, LOCAL_DOMAIN, DOMAIN = "shipshape-local", "malar.test", "vm.test"
DOMAINS = tuple(f"{prefix}{DOMAIN}" for prefix in ("", "www.", "api."))
LOGS = settings.STATE / "logs"


@dataclass(frozen=True)
class Operator:
    machine: Machine
    folder: Path
    #: One that no earlier session has written to.
    bucket: str = field(default_factory=lambda: f"shipshape-vm-{secrets.token_hex(4)}")

    def command(self, playbook: str, *arguments: str, **variables: Any) -> list[str]:
        """The inventory of `make up`, with this machine for the droplet and domains that lead to it."""
        group_vars = self.folder / "group_vars" / "all"
        group_vars.mkdir(parents=True, exist_ok=True)
        given = (settings.LOCAL_INVENTORY / "group_vars" / "all" / "main.yml").read_text(encoding="utf-8")
        given = given.replace(LOCAL_DOMAIN, DOMAIN).replace(LOCAL_BUCKET, self.bucket)
        (group_vars / "main.yml").write_text(given, encoding="utf-8")
        host = {
            "ansible_host": self.machine.address,
            "ansible_ssh_private_key_file": str(settings.SSH_KEY),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={settings.KNOWN_HOSTS}",
            # The tests that fail to log in do so on purpose.
            "hardening_fail2ban_ignore": [settings.SUBNET],
            # Emulated, a machine restarts its services in its own time.
            "hardening_revert_seconds": 300,
            "app_health_timeout": 600,
            # What a container of the lab cannot show: its engine runs within another one.
            "docker_userns_remap": True,
            **variables,
        }
        groups: dict[str, Any] = {group: {"hosts": {"vm": {}}} for group in ("proxy", "app", "database")}
        inventory = {"all": {"vars": {"lab": str(settings.STATE)}, "hosts": {"vm": host}, "children": groups}}
        (self.folder / "hosts.yml").write_text(yaml.safe_dump(inventory), encoding="utf-8")
        return [str(BIN / "ansible-playbook"), playbook, "-i", str(self.folder / "hosts.yml"), *arguments]

    def play(self, playbook: str, *arguments: str, **variables: Any) -> Run:
        """Run a playbook; what it prints goes into a log that can be followed, and into the result."""
        LOGS.mkdir(parents=True, exist_ok=True)
        log = LOGS / f"{self.machine.name}-{Path(playbook).stem}.log"
        with log.open("w+", encoding="utf-8") as output:
            result = subprocess.run(
                self.command(playbook, *arguments, **variables), cwd=PROJECT, env=environment(),
                stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, timeout=PLAYBOOK_TIMEOUT,
                check=False,
            )  # fmt: skip
            output.seek(0)
            return Run(result.returncode, output.read())

    def harden(self, **variables: Any) -> Run:
        return self.play("playbooks/hardening.yml", "--diff", **variables)

    def begin_to_harden(self, output: IO[bytes], **variables: Any) -> subprocess.Popen[bytes]:
        """In the background, in a session of its own, so that `give_up` ends it with all its workers."""
        return subprocess.Popen(
            self.command("playbooks/hardening.yml", **variables), cwd=PROJECT, env=environment(),
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def ping(self) -> Run:
        hosts = str(self.folder / "hosts.yml")
        command = [str(BIN / "ansible"), "vm", "-i", hosts, "-m", "ansible.builtin.ping", "-u", ADMIN]
        result = subprocess.run(command, cwd=PROJECT, env=environment(), stdin=subprocess.DEVNULL, check=False,
                                capture_output=True, text=True, timeout=300)  # fmt: skip
        return Run(result.returncode, result.stdout + result.stderr)


def give_up(process: subprocess.Popen[bytes]) -> None:
    """The controller dies, its workers with it; it may have come to its end by itself."""
    for child in descendants(process.pid) if process.poll() is None else []:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    process.wait(timeout=30)
