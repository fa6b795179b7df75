"""A droplet with an app of each kind, behind one proxy at a time, and a client next to it that asks."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bench import kinds
from tests.bench.commands import BenchError, timed
from tests.lab import droplet, inventory, mirror, settings
from tests.lab.engine import docker, stage
from tests.site import system

DROPLET, ADDRESS = "shipshape-bench-apps", "10.77.0.32"
# Debian 13: the only release whose archive has a testssl.sh that knows of TLS as it is today.
CLIENT, CLIENT_ADDRESS, CLIENT_RELEASE = "shipshape-bench-client", "10.77.0.33", "debian-13"
CLIENT_PACKAGES = ("wrk", "testssl.sh", "bind9-dnsutils")
#: Where a bare proxy listens next to ours.
BARE_PORT = 8443
PROXIES = ("nginx", "traefik")
POLICIES = ("intermediate", "modern")


@dataclass
class Ground:
    folder: Path
    traefik_mirror: str
    proxy: str = PROXIES[0]
    policy: str = POLICIES[0]
    #: The proxy and the policy that the droplet has, once it has any.
    stands: tuple[str, ...] = ()
    version: str = ""
    versions: int = 0
    run_id: str = field(default_factory=lambda: secrets.token_hex(4))

    @property
    def inventory(self) -> str:
        key = settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()
        variables: dict[str, Any] = {
            "acme_email": f"ops@{kinds.DOMAIN}",
            "acme_directory": "https://ca.test/acme/local/directory",
            "admins": [{"name": inventory.ADMIN, "ssh_keys": [key]}],
            "proxy": self.proxy,
            "tls_policy": self.policy,
            "traefik_mirror": self.traefik_mirror,
            "hardening_firewall_rules": [{"name": "bare-proxy", "port": BARE_PORT}],
            "apps": {kinds.name_of(kind): kinds.declared(kind) for kind in kinds.KINDS},
        }
        host = {
            "ansible_host": ADDRESS,
            "ansible_ssh_private_key_file": str(settings.SSH_KEY),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={settings.KNOWN_HOSTS}",
        }
        groups: dict[str, Any] = {group: {"hosts": {"bench": {}}} for group in ("proxy", "app", "database")}
        return str(
            inventory.write(self.folder, {"all": {"hosts": {"bench": host}, "vars": variables, "children": groups}})
        )

    def play(self, playbook: str, *arguments: str) -> tuple[float, str]:
        return timed("ansible-playbook", playbook, "-i", self.inventory, *arguments)

    def ping(self) -> float:
        module = ("-m", "ansible.builtin.ping")
        return timed("ansible", "bench", "-i", self.inventory, *module, "-u", inventory.ADMIN)[0]

    def publish(self) -> str:
        """A new version of every app, where it is deployed from."""
        self.versions += 1
        self.version = f"{self.run_id}-{self.versions}"
        for kind, how in kinds.KINDS.items():
            how.publish(kinds.name_of(kind), self.version)
        return self.version

    def stand_behind(self, proxy: str, policy: str = POLICIES[0]) -> None:
        """Bring the droplet to that state; the first time from a bare one."""
        if self.stands == (proxy, policy):
            return
        self.proxy, self.policy = proxy, policy
        if not self.stands:
            self.publish()
        with stage(f"apps behind {proxy}, TLS {policy}"):
            self.play("playbooks/proxy.yml" if self.stands[:1] == (proxy,) else "site.yml")
        self.stands = (proxy, policy)
        for kind in kinds.KINDS:
            self.expect(kind, self.version)

    def expect(self, kind: str, version: str) -> None:
        answer = system.fetch(f"https://{kinds.domain_of(kind)}/", ADDRESS, {}, None)
        if answer.status != 200 or version not in answer.body:
            raise BenchError(f"{kind} behind {self.proxy} shows {answer.status} {answer.body!r}, and not {version}")


def client(script: str) -> str:
    return docker("exec", CLIENT, "sh", "-euc", script)


@contextmanager
def made(folder: Path) -> Iterator[Ground]:
    """The droplet and its client, for as long as they are needed."""
    try:
        domains = [kinds.domain_of(kind) for kind in kinds.KINDS]
        droplet.remove(DROPLET)
        droplet.start(DROPLET, settings.DEFAULT_RELEASE, ADDRESS, domains)
        droplet.remove(CLIENT)
        droplet.start(CLIENT, CLIENT_RELEASE, CLIENT_ADDRESS)
        with stage(f"{', '.join(CLIENT_PACKAGES)} in the client"):
            install = "apt-get install --yes --quiet=2 --no-install-recommends"
            client(f"apt-get update --quiet=2; DEBIAN_FRONTEND=noninteractive {install} {' '.join(CLIENT_PACKAGES)}")
        with mirror.traefik(folder, ADDRESS) as address:
            yield Ground(folder, address)
    finally:
        droplet.remove(CLIENT)
        droplet.remove(DROPLET)
