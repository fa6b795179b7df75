"""An app on two droplets behind one proxy: both change over at once, or neither does, and no request is lost."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from tests.lab import repository
from tests.lab.engine import docker
from tests.site import system
from tests.site.load import Load
from tests.site.system import System

HOSTS = {"edge": "10.77.0.63", "back": "10.77.0.64"}
DOMAIN = "fault2.test"
FLAG = "/var/lib/shipshape/live/desk.green"
#: It does not start where somebody has left a file for it.
SERVER = """import http.server, os, sys
if os.path.exists("/opt/broken"):
    sys.exit("nothing works here")
class Desk(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = (os.environ["STAMP"] + " " + os.uname().nodename).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Desk).serve_forever()
"""
VARIABLES: dict[str, Any] = {
    "acme_email": "ops@fault2.test",
    "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
    "docker": False,
    "app_watch_seconds": 2,
    "app_drain_seconds": 3,
    "apps": {
        "desk": {
            "type": "command",
            "source": {"git": "https://git.test/app-hosts.git"},
            "command": "python3 serve.py",
            "domains": [DOMAIN],
            "health": {"path": "/", "start_period": 10},
            "env": {"STAMP": "{{ stamp }}"},
        }
    },
}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    """One droplet is proxy and app server, the other an app server behind it."""
    folder = tmp_path_factory.mktemp("pair")
    code = folder / "code"
    code.mkdir()
    (code / "serve.py").write_text(SERVER, encoding="utf-8")
    repository.publish(code, "app-hosts")
    inventory = folder / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    groups: dict[str, Any] = {"proxy": {"hosts": {"edge": {}}}, "app": {"hosts": {"edge": {}, "back": {}}}}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(groups), encoding="utf-8")
    (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(VARIABLES), encoding="utf-8")
    made = System(inventory, HOSTS, folder, {}, (DOMAIN,), {"stamp": "stamp-1"})
    system.start("pair", HOSTS, (DOMAIN,))
    try:
        run = made.play("site.yml")
        assert run.code == 0, run.tail
        yield made
    finally:
        system.stop("pair", HOSTS)


def console(host: str, script: str) -> str:
    return docker("exec", f"shipshape-pair-{host}", "bash", "-euo", "pipefail", "-c", script)


def running() -> dict[str, str]:
    """The one unit of the app on each host, and what its release is."""
    script = "systemctl list-units --plain --no-legend 'desk@*' | cut -d' ' -f1; grep -h STAMP /srv/desk/current/env"
    return {host: " ".join(console(host, script).split()) for host in HOSTS}


@contextlib.contextmanager
def loaded() -> Iterator[Load]:
    with Load(DOMAIN, HOSTS["edge"], pause=0.02) as load:
        yield load
    assert not load.failed, load.failed
    print(f"{len(load.seen)} requests, 0 failed")


def both(stamp: str) -> set[str]:
    return {f"{stamp} shipshape-pair-{host}" for host in HOSTS}


def test_both_hosts_change_over_at_once_and_lose_no_request(pair: System) -> None:
    pair.extra["stamp"] = "stamp-2"
    with loaded() as load:
        run = pair.play("playbooks/deploy.yml")
        assert run.code == 0, run.tail
    assert set(load.seen) == both("stamp-1") | both("stamp-2")
    # From one answer of the new release on, none is of the old one: no user goes back and forth between the two.
    stamps = [body.split()[0] for body in load.seen]
    assert stamps == sorted(stamps), stamps
    assert running() == dict.fromkeys(HOSTS, 'desk@green.service STAMP="stamp-2"')


def test_a_release_that_fails_on_one_host_is_started_on_none(pair: System) -> None:
    before = running()
    pair.extra["stamp"] = "stamp-3"
    console("back", "touch /opt/broken")
    with loaded() as load:
        run = pair.play("playbooks/deploy.yml")
    console("back", "rm /opt/broken")
    assert run.code != 0 and "desk: health: release " in run.output and "nothing works here" in run.output, run.tail
    assert "another host failed, so that nothing was switched here either" in run.output, run.tail
    assert set(load.seen) == both("stamp-2")
    assert running() == before
    for host in HOSTS:
        assert console(host, "ls /srv/desk/releases | wc -l; ls /srv/desk").split()[0] == "2"
        assert "deploy.lock" not in console(host, "ls /srv/desk")


def test_a_rollback_leads_both_hosts_back_and_loses_no_request(pair: System) -> None:
    with loaded() as load:
        run = pair.play("playbooks/rollback.yml", "-e", "app=desk")
        assert run.code == 0, run.tail
    assert set(load.seen) == both("stamp-2") | both("stamp-1")
    assert running() == dict.fromkeys(HOSTS, 'desk@blue.service STAMP="stamp-1"')
    assert console("edge", f"ls {FLAG} 2>/dev/null || echo none") == "none"
