"""The validation as an operator meets it: through ansible-playbook, with real files, before anything connects."""

from __future__ import annotations

import copy
import os
import re
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from inventory_cases import BASES, mutate

ROOT = Path(__file__).parents[2]
INVENTORIES = ROOT / "inventories"
KEY = BASES["one_droplet"]["vars"]["admins"][0]["ssh_keys"][0]
VALIDATE = """
- name: Validate
  hosts: all
  gather_facts: false
  tasks:
    - name: Inventory | Validate
      shipshape.droplet.validate_inventory:
- name: Connect
  hosts: all
  gather_facts: false
  tasks:
    - name: Ping
      ansible.builtin.ping:
"""
PROBLEM = re.compile(r"^ *\d+\. (.+?)(?:   \((.+)\))?$", re.MULTILINE)


class Droplet:
    """Something that listens where the inventory says the droplet is, and notices who calls."""

    def __init__(self) -> None:
        self.calls = 0
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.port = self.socket.getsockname()[1]
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                connection, _ = self.socket.accept()
            except OSError:
                return
            self.calls += 1
            connection.close()


@pytest.fixture
def droplet() -> Iterator[Droplet]:
    listening = Droplet()
    yield listening
    listening.socket.close()


def write(directory: Path, base: dict[str, Any], **host: Any) -> Path:
    """An inventory as files: hosts and groups in one, the variables in another."""
    hosts = {name: {**variables, **host} for name, variables in base["hosts"].items()}
    groups = {
        name: {"hosts": {member: hosts[member] for member in members}} for name, members in base["groups"].items()
    }
    (directory / "group_vars").mkdir(parents=True)
    (directory / "hosts.yml").write_text(yaml.safe_dump(groups))
    (directory / "group_vars" / "all.yml").write_text(yaml.safe_dump(base["vars"], allow_unicode=True))
    return directory


def play(directory: Path, *arguments: str, playbook: str = "") -> subprocess.CompletedProcess[str]:
    """Run ansible-playbook with the repository's configuration and an empty home."""
    path = Path(playbook) if playbook else directory / "play.yml"
    if not playbook:
        path.write_text(VALIDATE)
    environment = {**os.environ, "HOME": str(directory), "ANSIBLE_NOCOLOR": "1", "ANSIBLE_FORCE_COLOR": "0"}
    command = [str(Path(sys.executable).parent / "ansible-playbook"), str(path), *arguments]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


def places(output: str) -> list[str]:
    return [match[0] for match in PROBLEM.findall(output)]


def bad(**case: Any) -> dict[str, Any]:
    changed: dict[str, Any] = mutate(BASES["one_droplet"], case)
    return changed


def test_a_sound_inventory_is_followed_by_the_first_connection(tmp_path: Path, droplet: Droplet) -> None:
    """The control of the next test: the listener does notice."""
    source = write(tmp_path / "inventory", BASES["one_droplet"], ansible_host="127.0.0.1", ansible_port=droplet.port)
    done = play(tmp_path, "-i", str(source))
    assert "TASK [Ping]" in done.stdout, done.stdout + done.stderr
    assert droplet.calls > 0


@pytest.mark.parametrize("mode", [(), ("--check", "--diff"), ("--tags", "nginx")])
def test_site_contacts_no_host_when_the_inventory_is_bad(
    mode: tuple[str, ...], tmp_path: Path, droplet: Droplet
) -> None:
    changed = bad(set={"apps.malar-api.health": "health", "apps.malar-api.env.SECRET_KEY": "hunter22"})
    source = write(tmp_path / "inventory", changed, ansible_host="127.0.0.1", ansible_port=droplet.port)
    done = play(tmp_path, "-i", str(source), "-vvvv", *mode, playbook="site.yml")
    output = done.stdout + done.stderr
    assert done.returncode != 0
    assert places(output) == ["apps.malar-api.env.SECRET_KEY", "apps.malar-api.health"], output
    assert "hunter22" not in output
    assert droplet.calls == 0


def test_every_problem_is_listed_once_with_its_file_and_line_and_all_hosts_stop(tmp_path: Path) -> None:
    base = copy.deepcopy(BASES["three_droplets"])
    base["vars"]["apps"]["malar-api"]["env"]["SECRET_KEY"] = "{{ vault_nowhere }}"
    base["vars"]["apps"]["malar-api"]["env"]["JWT_SECRET_KEY"] = "{{ short }}"
    base["vars"]["short"] = "hunter22"
    base["vars"]["apps"]["malar-web"]["domains"] = ["{{ 'api' ~ '_web.malar.in' }}"]
    base["vars"]["postgresql_orgin"] = "pgdg"
    base["hosts"]["db1"]["private_address"] = "db1.internal"
    source = write(tmp_path / "inventory", base)
    done = play(tmp_path, "-i", str(source))
    found = {match[0]: match[1] for match in PROBLEM.findall(done.stdout)}
    assert list(found) == [
        "apps.malar-api.env.JWT_SECRET_KEY",
        "apps.malar-api.env.SECRET_KEY",
        "apps.malar-web.domains[0]",
        "postgresql_orgin",
        "db1: private_address",
    ], done.stdout + done.stderr
    assert "`vault_nowhere`, which is defined nowhere" in done.stdout
    assert "did you mean `postgresql_origin`?" in done.stdout
    lines = (source / "group_vars" / "all.yml").read_text().splitlines()
    for path, words in {
        "apps.malar-api.env.SECRET_KEY": "vault_nowhere",
        # A template's value is put right where the value is.
        "apps.malar-api.env.JWT_SECRET_KEY": "short: hunter22",
        "postgresql_orgin": "postgresql_orgin: pgdg",
    }.items():
        file, line = found[path].rsplit(":", 1)
        assert file.endswith("all.yml") and words in lines[int(line) - 1], found
    assert found["db1: private_address"].rsplit(":", 1)[0].endswith("hosts.yml")
    assert done.stdout.count("No host was contacted; nothing has changed.") == 1
    assert "TASK [Ping]" not in done.stdout and done.returncode != 0


def test_a_vaulted_secret_is_read_with_its_password_and_named_without(tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("correct horse")
    vault = [
        str(Path(sys.executable).parent / "ansible-vault"),
        "encrypt_string",
        "--vault-password-file",
        str(password),
    ]
    secret = subprocess.run([*vault, "hunter22"], capture_output=True, text=True, check=True).stdout
    source = write(tmp_path / "inventory", bad(set={"apps.malar-api.env.SECRET_KEY": "{{ vault_key }}"}))
    with (source / "group_vars" / "all.yml").open("a") as file:
        file.write(f"\nvault_key: {secret}\n")
    without = play(tmp_path, "-i", str(source))
    assert "a value of the vault that cannot be decrypted" in without.stdout, without.stdout + without.stderr
    read = play(tmp_path, "-i", str(source), "--vault-password-file", str(password), "-vvv")
    assert "a value of 8 characters" in read.stdout and "hunter22" not in read.stdout + read.stderr


@pytest.mark.parametrize("name", ["production", "staging"])
def test_the_templates_say_exactly_what_to_fill_in(name: str, tmp_path: Path) -> None:
    done = play(tmp_path, "-i", str(INVENTORIES / name))
    host = "web1" if name == "production" else "staging1"
    assert sorted(places(done.stdout)) == sorted(
        [
            "acme_email",
            "admins[0].ssh_keys[0]",
            f"{host}: ansible_host",
            "apps.api.domains[0]",
            "apps.api.env.SECRET_KEY",
            "apps.api.source.git",
            "apps.web.domains[0]",
            "apps.web.redirect_domains[0]",
            "apps.web.source.git",
            "backup.password",
            "backup.s3.access_key",
            "backup.s3.bucket",
            "backup.s3.secret_key",
        ]
    ), done.stdout + done.stderr


@pytest.mark.parametrize("name", ["production", "staging"])
def test_a_template_that_is_filled_in_passes(name: str, tmp_path: Path) -> None:
    directory = tmp_path / name
    for path in (INVENTORIES / name).rglob("*.yml"):
        text = path.read_text()
        text = re.sub(r"203\.0\.113\.\d+", "164.92.130.7", text).replace("example.com", "malar.in")
        text = text.replace("ssh-ed25519 AAAA… laptop", KEY).replace("<bucket>", "malar-backups")
        text = text.replace("CHANGEME", "5f0c9b1e7a3d48264c8e")
        target = directory / path.relative_to(INVENTORIES / name)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    done = play(tmp_path, "-i", str(directory), "--tags", "always", playbook="playbooks/validate.yml")
    assert done.returncode == 0, done.stdout + done.stderr


def malar(directory: Path) -> Path:
    """System 5 as a fresh copy, so that an operator's own vault.yml is not in it."""
    for path in (INVENTORIES / "malar-market").rglob("*"):
        if path.suffix in {".yml", ".example"} and path.name != "vault.yml":
            target = directory / path.relative_to(INVENTORIES / "malar-market")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text())
    return directory


def test_system_five_fits_into_forty_lines_beside_its_vault() -> None:
    files = [
        path
        for path in (INVENTORIES / "malar-market").rglob("*")
        if path.is_file() and not path.name.startswith(("vault", "."))
    ]
    lines = [line for path in files for line in path.read_text().splitlines() if line.split("#")[0].strip()]
    assert 20 < len(lines) <= 40, f"{len(lines)} lines in {[path.name for path in files]}"
    assert max(len(line) for line in lines) <= 120, "long lines would be a cheat"


PLAN = """
APP_NAME ENVIRONMENT DEBUG SECRET_KEY DATABASE_URL DATABASE_POOL_SIZE DATABASE_MAX_OVERFLOW REDIS_URL
JWT_SECRET_KEY JWT_ALGORITHM ACCESS_TOKEN_EXPIRE_MINUTES REFRESH_TOKEN_EXPIRE_DAYS FRONTEND_URL
ALLOWED_ORIGINS TWILIO_ACCOUNT_SID TWILIO_AUTH_TOKEN TWILIO_WHATSAPP_NUMBER TWILIO_WEBHOOK_URL
INTERAKT_API_KEY INTERAKT_WEBHOOK_URL SMTP_HOST SMTP_PORT SMTP_USER SMTP_PASSWORD EMAIL_FROM SENTRY_DSN
LOG_LEVEL RATE_LIMIT_PER_MINUTE RATE_LIMIT_PER_HOUR
"""


def test_system_five_has_every_variable_of_its_plan() -> None:
    written = yaml.safe_load((INVENTORIES / "malar-market" / "group_vars" / "all" / "main.yml").read_text())
    derived = {"DATABASE_URL", "REDIS_URL"}
    assert set(written["apps"]["malar-api"]["env"]) | derived == set(PLAN.split())


def test_system_five_with_its_example_vault_is_told_what_to_fill_in(tmp_path: Path) -> None:
    directory = malar(tmp_path / "malar-market")
    example = directory / "group_vars" / "all" / "vault.yml.example"
    example.rename(example.with_name("vault.yml"))
    done = play(tmp_path, "-i", str(directory))
    told = places(done.stdout)
    assert len(told) == 13, done.stdout + done.stderr
    assert {"admins[0].ssh_keys[0]", "apps.malar-api.env.SENTRY_DSN", "backup.s3.endpoint"} <= set(told)


def test_system_five_with_a_vault_passes(tmp_path: Path) -> None:
    directory = malar(tmp_path / "malar-market")
    names = yaml.safe_load((directory / "group_vars" / "all" / "vault.yml.example").read_text())
    vault: dict[str, Any] = {name: "5f0c9b1e7a3d48264c8e" for name in names}
    vault["vault_malar_admin_key"] = KEY
    vault["vault_malar_s3"] = {
        "endpoint": "https://s3.test",
        "bucket": "malar-market-backups",
        "access_key": "DO00QX7RJ2M4VFLW",
        "secret_key": "7hQpVb2xYtG9sKd4wLmR",
    }
    (directory / "group_vars" / "all" / "vault.yml").write_text(yaml.safe_dump(vault))
    done = play(tmp_path, "-i", str(directory), playbook="playbooks/validate.yml")
    assert done.returncode == 0 and "ok=1" in done.stdout, done.stdout + done.stderr
