"""Two database droplets: one streams to the other, which takes over when the first has lost everything.

The app is on the second droplet. Each request to it writes a row and says so only after the commit.
"""

from __future__ import annotations

import http.client
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

import pytest
import yaml

from tests.lab import repository, settings
from tests.lab.engine import docker
from tests.site import system
from tests.site.load import Door
from tests.site.system import Run, System

pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="some minutes of a failover and back: make test-all")

HOSTS = {"one": "10.77.0.190", "two": "10.77.0.191"}
DOMAIN = "replica.test"
SERVER = """import http.server, os, subprocess
class Counter(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        code = 0
        if self.path.startswith("/write/"):
            number = int(self.path.rpartition("/")[2])
            sql = f"INSERT INTO beats VALUES ({number})"
            code = subprocess.run(["psql", "-qXd", os.environ["DATABASE_URL"], "-c", sql]).returncode
        self.send_response(503 if code else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.ThreadingHTTPServer((os.environ["HOST"], int(os.environ["PORT"])), Counter).serve_forever()
"""
VARIABLES: dict[str, Any] = {
    "acme_email": "ops@replica.test",
    "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
    "docker": False,
    "app_watch_seconds": 1,
    "app_drain_seconds": 1,
    "postgresql_synchronous": True,
    "apps": {
        "beats": {
            "type": "command",
            "source": {"git": "https://git.test/replica.git"},
            "command": "python3 serve.py",
            "migrate": 'psql -qXd "$DATABASE_URL" -c "CREATE TABLE IF NOT EXISTS beats (number bigint PRIMARY KEY)"',
            "domains": [DOMAIN],
            "health": "/",
            "database": {},
        }
    },
}
FOLLOWS = "SELECT pg_is_in_recovery() AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
RECEIVER = "pgrep -f 'postgres: .*[w]alreceiver'"


class Writer(threading.Thread):
    """Writes numbers one after the other; knows which of them were confirmed, and for how long none was."""

    def __init__(self, first: int) -> None:
        super().__init__(daemon=True)
        self.number = first
        self.confirmed: list[int] = []
        self.gap = 0.0
        self._last = time.monotonic()
        self._over = threading.Event()

    def __enter__(self) -> Writer:
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._over.set()
        self.join(30)

    def run(self) -> None:
        while not self._over.is_set():
            self.number += 1
            door = Door(DOMAIN, HOSTS["two"])
            try:
                door.request("GET", f"/write/{self.number}")
                if door.getresponse().status == 200:
                    self.gap = max(self.gap, time.monotonic() - self._last)
                    self._last = time.monotonic()
                    self.confirmed.append(self.number)
            except (OSError, http.client.HTTPException):
                pass
            finally:
                door.close()
            self._over.wait(0.05)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    made = declared(tmp_path_factory.mktemp("replica"))
    system.start("replica", HOSTS, (DOMAIN,))
    try:
        yield made
    finally:
        system.stop("replica", HOSTS)


def declared(folder: Path) -> System:
    """The inventory: the first of the two has the databases, the second one the app and a replica."""
    code = folder / "code"
    code.mkdir()
    (code / "serve.py").write_text(SERVER, encoding="utf-8")
    repository.publish(code, "replica")
    inventory = folder / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    groups = {"proxy": ["two"], "app": ["two"], "database": ["one", "two"]}
    hosts: dict[str, Any] = {group: {"hosts": {host: {} for host in members}} for group, members in groups.items()}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False), encoding="utf-8")
    (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(VARIABLES), encoding="utf-8")
    return System(inventory, HOSTS, folder, {}, (DOMAIN,))


def console(host: str, script: str) -> str:
    return docker("exec", f"shipshape-replica-{host}", "bash", "-euo", "pipefail", "-c", script).strip()


def ask(host: str, sql: str, database: str = "beats") -> str:
    return console(host, f'cd /; runuser -u postgres -- psql -XAtqd {database} -c "{sql}"')


def numbers(host: str) -> set[int]:
    return {int(line) for line in ask(host, "SELECT number FROM beats").split()}


def converged(pair: System) -> Run:
    run = pair.play("site.yml")
    assert run.code == 0, run.tail
    again = pair.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    return run


def test_the_second_droplet_streams_and_a_second_run_changes_nothing(pair: System) -> None:
    converged(pair)
    assert ask("two", FOLLOWS) == "t"
    assert ask("one", "SHOW synchronous_standby_names") == "ANY 1 (shipshape_two)"
    assert ask("one", "SELECT slot_name, active FROM pg_replication_slots") == "shipshape_two|t"
    with Writer(0) as writer:
        time.sleep(2)
    assert writer.confirmed and set(writer.confirmed) <= numbers("two")
    # The passwords are on both, the replica's own login is by TLS, and nobody else may replicate.
    secrets = "cat /etc/shipshape/postgresql/*.password | sha256sum"
    assert console("one", secrets) == console("two", secrets)
    tls = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_replication USING (pid)"
    assert ask("one", tls) == "t"
    verified = pair.play("playbooks/verify.yml")
    assert verified.code == 0, verified.tail


def test_a_replica_that_is_behind_is_not_promoted(pair: System) -> None:
    console("two", f"kill -STOP $({RECEIVER})")
    try:
        ask("one", "SET synchronous_commit = local; CREATE TABLE filler AS SELECT generate_series(1, 600000) AS n")
        run = pair.play("playbooks/promote.yml")
        assert run.code != 0 and "bytes of the write-ahead log behind one; the limit is 16777216" in run.output, (
            run.tail
        )
        assert run.count("changed") == 0, run.tail
    finally:
        console("two", f"kill -CONT $({RECEIVER})")
    assert ask("one", "SELECT pg_is_in_recovery()") == "f" and ask("two", "SELECT pg_is_in_recovery()") == "t"


def test_a_primary_that_has_lost_everything_is_replaced_without_the_loss_of_a_commit(pair: System) -> None:
    before = console("one", "cat /etc/shipshape/postgresql/primary")
    assert before == "one 0"
    with Writer(1_000_000) as writer:
        time.sleep(3)
        console("one", "pkill -9 -u postgres; rm -rf /var/lib/postgresql/*/main")
        run = pair.play("playbooks/promote.yml")
        assert run.code == 0, run.tail
        time.sleep(2)
    lost = set(writer.confirmed) - numbers("two")
    print(f"{len(writer.confirmed)} commits, {len(lost)} lost, none for {writer.gap:.1f} s")
    assert not lost
    assert writer.gap <= 60
    assert max(writer.confirmed) in numbers("two") and "two is the primary" in run.output
    for host in HOSTS:
        assert console(host, "cat /etc/shipshape/postgresql/primary") == "two 1"
    converged(pair)
    assert ask("one", FOLLOWS) == "t"
    assert ask("two", "SHOW synchronous_standby_names") == "ANY 1 (shipshape_one)"
    assert numbers("one") == numbers("two")


def test_the_way_back_loses_nothing_either_and_keeps_the_old_data(pair: System) -> None:
    with Writer(2_000_000) as writer:
        time.sleep(2)
        run = pair.play("playbooks/promote.yml")
        assert run.code == 0, run.tail
        time.sleep(2)
    print(f"{len(writer.confirmed)} commits, none for {writer.gap:.1f} s")
    assert not set(writer.confirmed) - numbers("one")
    # Fenced: it starts neither at boot nor by hand.
    assert "masked" in console("two", "systemctl is-enabled postgresql@15-main || true")
    run = converged(pair)
    assert ask("two", FOLLOWS) == "t"
    assert console("two", "ls -d /var/lib/postgresql/*/main.kept-*/PG_VERSION")
