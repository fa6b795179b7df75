"""A system under test: droplets of the lab, an inventory of the repository, and what the lab adds to it."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tests.lab import droplet, settings

PROJECT = settings.PROJECT
BIN = Path(sys.executable).parent
PLAYBOOK_TIMEOUT = 900
#: What changes on any running machine: logs, caches, what Ansible itself leaves of a visit, and the kernel's own trees.
RESTLESS = re.compile(
    r"/(root|run|tmp|proc|sys|var/(log|tmp|lib/systemd|cache)|home/[^/]+/\.ansible|etc/ld\.so\.cache)"
)


@dataclass(frozen=True)
class Run:
    """A finished playbook run."""

    code: int
    output: str

    def count(self, name: str) -> int:
        """Sum of a column of the recap over all hosts."""
        return sum(int(number) for number in re.findall(rf"^\S+ +: .*\b{name}=(\d+)", self.output, re.MULTILINE))

    @property
    def tail(self) -> str:
        return self.output[-6000:]


@dataclass
class System:
    """Droplets with one inventory. Secrets are made up for each; the tests know them and look for them in outputs."""

    inventory: Path
    hosts: dict[str, str]
    folder: Path
    s3: dict[str, str]
    domains: tuple[str, ...] = ()
    extra: dict[str, Any] = field(default_factory=dict)
    secrets: dict[str, str] = field(default_factory=dict)

    def secret(self, name: str) -> str:
        return self.secrets.setdefault(name, secrets.token_hex(20))

    @property
    def overlay(self) -> Path:
        """What the lab says beside the inventory: addresses, authority, and the vault."""
        path = self.folder / "lab.yml"
        key = settings.SSH_KEY.with_suffix(".pub").read_text(encoding="utf-8").strip()
        vault = {
            f"vault_malar_{name}": self.secret(name)
            for name in (
                *("secret_key", "jwt_secret_key", "twilio_sid", "twilio_token", "interakt_key"),
                *("smtp_user", "smtp_password", "backup_password"),
            )
        }
        vault["vault_malar_sentry_dsn"] = f"https://{self.secret('sentry')}@sentry.test/1"
        variables = {
            "acme_directory": "https://ca.test/acme/local/directory",
            "ansible_ssh_private_key_file": str(settings.SSH_KEY),
            "ansible_ssh_common_args": f"-o UserKnownHostsFile={settings.KNOWN_HOSTS}",
            "vault_malar_admin_key": key,
            "vault_malar_s3": self.s3,
            **vault,
            **self.extra,
        }
        # Droplets of the lab have one address for both.
        hosts = {name: {"ansible_host": address, "private_address": address} for name, address in self.hosts.items()}
        path.write_text(yaml.safe_dump({"all": {"hosts": hosts, "vars": variables}}), encoding="utf-8")
        return path

    def command(self, playbook: str, *arguments: str) -> list[str]:
        return [str(BIN / "ansible-playbook"), playbook, "-i", str(self.inventory), "-i", str(self.overlay), *arguments]

    def play(self, playbook: str, *arguments: str, cwd: Path = PROJECT) -> Run:
        result = subprocess.run(
            self.command(playbook, *arguments),
            cwd=cwd, env=environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=PLAYBOOK_TIMEOUT, check=False,
        )  # fmt: skip
        return Run(result.returncode, result.stdout)

    def play_and_kill(self, playbook: str, task: str) -> str:
        """Kill the controller when the named task begins; return what it had printed.

        Its workers have sessions of their own and live on: they finish the task, with all items of its loop.
        """
        process = subprocess.Popen(
            self.command(playbook),
            cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        assert process.stdout
        printed = ""
        for line in process.stdout:
            printed += line
            if line.startswith(("TASK", "RUNNING HANDLER")) and task in line:
                time.sleep(0.4)
                os.killpg(process.pid, signal.SIGKILL)
                break
        process.wait(timeout=60)
        return printed

    def ssh(self, script: str, host: str = "") -> str:
        """Run a script as root by way of the admin; it must succeed."""
        address = self.hosts[host or next(iter(self.hosts))]
        options = [
            "-i",
            str(settings.SSH_KEY),
            "-o",
            f"UserKnownHostsFile={settings.KNOWN_HOSTS}",
            "-o",
            "BatchMode=yes",
        ]
        result = subprocess.run(
            ["ssh", *options, f"deploy@{address}", "sudo", "bash", "-euo", "pipefail", "-s"],
            input=script, capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
        return result.stdout.strip()

    def token(self) -> dict[str, str]:
        """The header that lets a test write to the example API, signed with the inventory's own key."""

        def encode(data: bytes) -> str:
            return base64.urlsafe_b64encode(data).rstrip(b"=").decode()

        claims = {"sub": "test", "exp": int(time.time()) + 600}
        text = ".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256", "typ": "JWT"}, claims))
        signature = hmac.new(self.secret("jwt_secret_key").encode(), text.encode(), hashlib.sha256).digest()
        return {"Authorization": f"Bearer {text}.{encode(signature)}", "Content-Type": "application/json"}

    def fetch(self, url: str, headers: dict[str, str] | None = None, body: bytes | None = None) -> Response:
        """Ask the proxy, with the certificate verified; redirects are not followed."""
        return fetch(url, next(iter(self.hosts.values())), headers or {}, body)


@dataclass(frozen=True)
class Response:
    status: int
    headers: dict[str, str]
    body: str

    def json(self) -> Any:
        return json.loads(self.body)


def fetch(url: str, address: str, headers: dict[str, str], body: bytes | None) -> Response:
    scheme, rest = url.split("://", 1)
    domain = rest.partition("/")[0]
    command = [
        *(
            "curl",
            "--silent",
            "--show-error",
            "--include",
            "--http1.1",
            "--max-time",
            "30",
            "--cacert",
            str(settings.CA_CERTIFICATE),
        ),
        *("--resolve", f"{domain}:{443 if scheme == 'https' else 80}:{address}"),
        *(word for name, value in headers.items() for word in ("--header", f"{name}: {value}")),
        *(("--data-binary", "@-") if body is not None else ()),
        url,
    ]
    result = subprocess.run(command, input=body, capture_output=True, timeout=60, check=False)
    assert result.returncode == 0, f"{url}: {result.stderr.decode()}"
    head, _, text = result.stdout.decode(errors="replace").partition("\r\n\r\n")
    if head.startswith("HTTP/1.1 100 "):  # a large body has been invited
        head, _, text = text.partition("\r\n\r\n")
    lines = head.splitlines()
    return Response(
        int(lines[0].split()[1]),
        {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])},
        text,
    )


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}:{os.environ['PATH']}",
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
    }


def descendants(process: int) -> list[int]:
    """The process and all that it has started, sessions of their own included."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = [tuple(int(word) for word in line.split()) for line in listing.splitlines()]
    found = [process]
    for number in found:
        found += [child for child, parent in parents if parent == number]
    return found


def changes(name: str) -> list[str]:
    """What differs in a droplet from its image, with a hash of each file; what is restless anywhere is left aside."""
    diff = subprocess.run(["docker", "diff", name], capture_output=True, text=True, check=True).stdout.splitlines()
    paths = sorted(line[2:] for line in diff if not RESTLESS.match(line[2:]))
    script = (
        "import hashlib,os,sys\nfor p in sys.stdin.read().split('\\n'):\n"
        "    plain = os.path.isfile(p) and not os.path.islink(p)\n"
        "    print(p, hashlib.sha256(open(p,'rb').read()).hexdigest() if plain else '')"
    )
    hashed = subprocess.run(
        ["docker", "exec", "--interactive", name, "python3", "-c", script],
        input="\n".join(paths), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return hashed.splitlines()


def start(system_name: str, addresses: dict[str, str], domains: tuple[str, ...] = ()) -> None:
    """Bare droplets at these addresses; the first answers on the domains."""
    for number, (name, address) in enumerate(addresses.items()):
        droplet.remove(f"shipshape-{system_name}-{name}")
        droplet.start(f"shipshape-{system_name}-{name}", os.environ.get("SHIPSHAPE_IMAGE", settings.DEFAULT_RELEASE),
                      address, domains if number == 0 else ())  # fmt: skip


def stop(system_name: str, addresses: dict[str, str]) -> None:
    for name in addresses:
        droplet.remove(f"shipshape-{system_name}-{name}")


def bucket(name: str) -> dict[str, str]:
    """Access to a bucket that no earlier session has written to, with another password than ours."""
    keys: dict[str, str] = json.loads(settings.S3_KEYS.read_text(encoding="utf-8"))
    return {**keys, "bucket": f"{name}-{secrets.token_hex(4)}"}
