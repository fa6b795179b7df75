"""More than one droplet, and runs that are cut off."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
import yaml

from tests.lab import settings
from tests.site import malar_market, system
from tests.site.system import BIN, PROJECT, System

DOMAIN = "spread.test"
DOMAINS = malar_market.domains(DOMAIN)
API = f"https://api.{DOMAIN}"


def spread(folder: Path, hosts: dict[str, str], groups: dict[str, str], bucket: str) -> System:
    """The malar-market inventory with its hosts file replaced by one host for each group."""
    inventory = malar_market.at(DOMAIN, folder)
    text = yaml.safe_dump({group: {"hosts": {host: {}}} for group, host in groups.items()})
    (inventory / "hosts.yml").write_text(text, encoding="utf-8")
    return System(inventory, hosts, folder, system.bucket(bucket), DOMAINS)


@pytest.fixture
def app_behind(tmp_path: Path) -> System:
    """A proxy, and app and database behind it on another droplet."""
    groups = {"proxy": "edge", "app": "back", "database": "back"}
    return spread(tmp_path, {"edge": "10.77.0.41", "back": "10.77.0.42"}, groups, "shipshape-two")


@pytest.fixture
def database_apart(tmp_path: Path) -> System:
    """Proxy and app on one droplet, the database on another."""
    groups = {"proxy": "front", "app": "front", "database": "db"}
    return spread(tmp_path, {"front": "10.77.0.43", "db": "10.77.0.44"}, groups, "shipshape-apart")


def open_ports(address: str) -> list[str]:
    script = PROJECT / "molecule" / "shared" / "open_ports.py"
    found = subprocess.run([BIN / "python", script, address, "1-30500"], capture_output=True, text=True, check=True)
    return found.stdout.split()


def timed(where: System, playbook: str) -> float:
    begin = time.monotonic()
    run = where.play(playbook, "-e", "app=malar-api")
    assert run.code == 0, run.tail
    return time.monotonic() - begin


def pinged(where: System) -> float:
    """What Ansible takes to do nothing, as the admin: the middle of three times."""
    command = [str(BIN / "ansible"), "all", "-i", str(where.inventory), "-i", str(where.overlay), "-u", "deploy"]
    taken = []
    for _ in range(3):
        begin = time.monotonic()
        subprocess.run(
            [*command, "-m", "ansible.builtin.ping"],
            cwd=PROJECT, env=system.environment(), capture_output=True, stdin=subprocess.DEVNULL, check=True,
        )  # fmt: skip
        taken.append(time.monotonic() - begin)
    return sorted(taken)[1]


@pytest.mark.skipif(not settings.EVERYTHING, reason="test_app_hosts.py has an app behind a proxy, too; make test-all")
def test_proxy_and_app_on_two_droplets_find_each_other_and_nobody_else_does(app_behind: System) -> None:
    system.start("two", app_behind.hosts, DOMAINS)
    try:
        run = app_behind.play("site.yml")
        assert run.code == 0, run.tail
        health = app_behind.fetch(f"{API}/health")
        assert (health.status, health.json()["database"]) == (200, "ok")
        assert "<html" in app_behind.fetch(f"https://{DOMAIN}/").body.lower()
        # The app's port is open to the proxy only: this machine is neither.
        assert open_ports(app_behind.hosts["back"]) == ["22"]
        assert open_ports(app_behind.hosts["edge"]) == ["22", "80", "443"]
        again = app_behind.play("site.yml", "--diff")
        assert (again.code, again.count("changed")) == (0, 0), again.tail
        # The proxy on the other droplet is led to the next release, also by a run that leaves that droplet out.
        deploy = app_behind.play("playbooks/deploy.yml", "--limit", "back", "-e", "app=malar-api", "-e", "version=HEAD")
        assert deploy.code != 0 and "is no branch, tag or commit" in deploy.output, deploy.tail
        app_behind.extra["app_watch_seconds"] = 2
        app_behind.extra["vault_malar_sentry_dsn"] = "https://another@sentry.test/1"
        deploy = app_behind.play("playbooks/deploy.yml", "--limit", "back", "-e", "app=malar-api")
        assert deploy.code == 0, deploy.tail
        flag = "/var/lib/shipshape/live/malar-api.green"
        assert app_behind.ssh(f"stat -c %a {flag}", host="edge") == "644"
        units = app_behind.ssh("systemctl list-units --plain --no-legend 'malar-api@*'", host="back")
        assert units.split()[0] == "malar-api@green.service" and len(units.splitlines()) == 1
        assert app_behind.fetch(f"{API}/health").status == 200
        took = {
            "deploy": timed(app_behind, "playbooks/deploy.yml"),
            "rollback": timed(app_behind, "playbooks/rollback.yml"),
        }
        ping = pinged(app_behind)
        print(", ".join(f"{what}: {seconds / ping:.1f} pings" for what, seconds in took.items()), f"of {ping:.2f} s")
        assert took["deploy"] <= 10 * ping and took["rollback"] <= 15 * ping, (took, ping)
        assert app_behind.ssh(f"ls {flag} 2>/dev/null || echo none", host="edge") == "none"
        assert app_behind.fetch(f"{API}/health").status == 200
        assert open_ports(app_behind.hosts["back"]) == ["22"]
    finally:
        system.stop("two", app_behind.hosts)


#: When the controller dies in a first run.
MOMENTS = ("Packages | Install those", "Way in | Admins", "Certificates | Configure", "Deploy | ")


@pytest.mark.skipif(not settings.EVERYTHING, reason="test_interrupted.py kills runs, too; make test-all")
def test_a_run_killed_at_any_stage_is_finished_by_the_next_one(database_apart: System) -> None:
    """The database is on its own droplet."""
    system.start("apart", database_apart.hosts, DOMAINS)
    try:
        for moment in MOMENTS:
            printed = database_apart.play_and_kill("site.yml", moment)
            assert moment in printed, printed[-3000:]
        run = database_apart.play("site.yml")
        assert run.code == 0, run.tail
        again = database_apart.play("site.yml", "--diff")
        assert (again.code, again.count("changed")) == (0, 0), again.tail
        health = database_apart.fetch(f"{API}/health")
        assert (health.status, health.json()["database"]) == (200, "ok")
        # PostgreSQL answers its app's droplet, with TLS, and nobody else.
        assert open_ports(database_apart.hosts["db"]) == ["22"]
        encrypted = database_apart.ssh(
            "cd /\n"
            'runuser -u postgres -- psql -Atc "SELECT DISTINCT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)'
            " WHERE usename = 'malar_api'\"",
            host="db",
        )
        assert encrypted == "t"
        # A deploy limited to the app's droplet still reads the password on the other.
        deploy = database_apart.play("playbooks/deploy.yml", "--limit", "front", "-e", "app=malar-api")
        assert (deploy.code, deploy.count("changed")) == (0, 0), deploy.tail
        # Nor does a deploy that is killed at any step take the app away; the next run deploys what is declared.
        database_apart.extra["app_watch_seconds"] = 2
        for step in ("Build", "Migrate", "Start", "Lead the proxies", "End"):
            database_apart.extra["vault_malar_sentry_dsn"] = f"https://{step[:4].lower()}@sentry.test/1"
            database_apart.play_and_kill("playbooks/deploy.yml", f"Deploy | {step}")
            assert database_apart.fetch(f"{API}/health").status == 200, step
        deploy = database_apart.play("playbooks/deploy.yml")
        assert deploy.code == 0, deploy.tail
        assert database_apart.fetch(f"{API}/health").status == 200
        environment = database_apart.ssh("cat /srv/malar-api/current/env", host="front")
        assert "https://end@sentry.test/1" in environment
        colours = database_apart.ssh("systemctl list-units --plain --no-legend 'malar-api@*'", host="front")
        assert len(colours.splitlines()) == 1
        again = database_apart.play("playbooks/deploy.yml")
        assert (again.code, again.count("changed")) == (0, 0), again.tail
    finally:
        system.stop("apart", database_apart.hosts)


def test_the_templates_are_refused_with_what_to_fill_in() -> None:
    for name in ("production", "staging"):
        result = subprocess.run(
            [str(BIN / "ansible-playbook"), "site.yml", "-i", str(PROJECT / "inventories" / name)],
            cwd=PROJECT, env=system.environment(), stdin=subprocess.DEVNULL,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert result.returncode != 0
        for needed in ("ansible_host", "acme_email", "ssh_keys", "SECRET_KEY"):
            assert needed in result.stdout + result.stderr, needed
        assert "Login" not in result.stdout
    assert settings.PROJECT == PROJECT
