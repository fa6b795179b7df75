"""Two database droplets: one streams to the other, which takes over when the first has lost everything. Then three.

Two apps are on a third droplet, one of them by way of PgBouncer. Each request to them writes a row, and is answered
only after the commit.
"""

from __future__ import annotations

import dataclasses
import http.client
import re
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

HOSTS = {"front": "10.77.0.86", "one": "10.77.0.84", "two": "10.77.0.85"}
DATABASES = ("one", "two")
THIRD = {"three": "10.77.0.98"}
#: Each app's domain.
DOMAINS = {"direct": "direct.replica.test", "pooled": "pooled.replica.test"}
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


def app(name: str, database: dict[str, Any]) -> dict[str, Any]:
    return {
        "type": "command",
        "packages": ["postgresql-client"],
        "source": {"git": "https://git.test/replica.git"},
        "command": "python3 serve.py",
        "migrate": 'psql -qXd "$DATABASE_URL" -c "CREATE TABLE IF NOT EXISTS beats (number bigint PRIMARY KEY)"',
        "domains": [DOMAINS[name]],
        "health": "/",
        "database": database,
    }


VARIABLES: dict[str, Any] = {
    "acme_email": "ops@replica.test",
    "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
    "docker": False,
    "app_watch_seconds": 1,
    "app_drain_seconds": 1,
    "postgresql_synchronous": True,
    "apps": {"direct": app("direct", {}), "pooled": app("pooled", {"pool": 5})},
}
FOLLOWS = "SELECT pg_is_in_recovery() AND EXISTS (SELECT FROM pg_stat_wal_receiver WHERE status = 'streaming')"
RECEIVER = "pgrep -f 'postgres: .*[w]alreceiver'"


class Writer(threading.Thread):
    """Writes numbers one after the other; knows which of them were confirmed, and for how long none was."""

    def __init__(self, name: str, first: int) -> None:
        super().__init__(daemon=True)
        self.app, self.number = name, first
        self.confirmed: list[int] = []
        #: Seconds for which none was confirmed, at most and at the end.
        self.gap = self.idle = 0.0
        self._last = time.monotonic()
        self._over = threading.Event()

    def run(self) -> None:
        while not self._over.is_set():
            self.number += 1
            door = Door(DOMAINS[self.app], HOSTS["front"])
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

    def end(self) -> None:
        self._over.set()
        self.idle = time.monotonic() - self._last
        self.join(30)

    def lost(self, host: str) -> set[int]:
        """What was confirmed and is not there."""
        return set(self.confirmed) - {int(line) for line in ask(host, "SELECT number FROM beats", self.app).split()}


class Writers:
    """One for each app, from `with` to its end."""

    def __init__(self, first: int) -> None:
        self.all = [Writer(name, first) for name in DOMAINS]

    def __enter__(self) -> list[Writer]:
        for writer in self.all:
            writer.start()
        return self.all

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for writer in self.all:
            writer.end()


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    made = declared(tmp_path_factory.mktemp("replica"))
    system.start("replica", HOSTS, tuple(DOMAINS.values()))
    try:
        yield made
    finally:
        system.stop("replica", HOSTS)


def declared(folder: Path) -> System:
    """The inventory: the apps on a droplet of their own, and two for the databases."""
    code = folder / "code"
    code.mkdir()
    (code / "serve.py").write_text(SERVER, encoding="utf-8")
    repository.publish(code, "replica")
    inventory = folder / "inventory"
    (inventory / "group_vars" / "all").mkdir(parents=True)
    group(inventory, *DATABASES)
    (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(VARIABLES), encoding="utf-8")
    return System(inventory, HOSTS, folder, {}, tuple(DOMAINS.values()))


def group(inventory: Path, *databases: str) -> None:
    """Write who is in which group."""
    groups = {"proxy": ["front"], "app": ["front"], "database": [*databases]}
    hosts: dict[str, Any] = {name: {"hosts": {host: {} for host in members}} for name, members in groups.items()}
    (inventory / "hosts.yml").write_text(yaml.safe_dump(hosts, sort_keys=False), encoding="utf-8")


@pytest.fixture(scope="module")
def trio(pair: System) -> Iterator[System]:
    """A third database droplet, and the first one back, if it is gone: it still takes itself for the primary then."""
    made = dataclasses.replace(pair, hosts={**HOSTS, **THIRD})
    system.start("replica", THIRD)
    try:
        docker("start", "shipshape-replica-one")
        console("one", "systemctl is-system-running --wait || true")
        group(pair.inventory, *DATABASES, *THIRD)
        run = made.play("site.yml")
        assert run.code == 0, run.tail
        yield made
    finally:
        system.stop("replica", THIRD)


def console(host: str, script: str) -> str:
    return docker("exec", f"shipshape-replica-{host}", "bash", "-euo", "pipefail", "-c", script).strip()


def ask(host: str, sql: str, database: str = "direct") -> str:
    return console(host, f'cd /; runuser -u postgres -- psql -XAtqd {database} -c "{sql}"')


def report(host: str, writers: list[Writer]) -> None:
    """Print the figures. Nothing that was confirmed is missing on the new primary, which has been written to since."""
    for writer in writers:
        lost = len(writer.lost(host))
        print(f"{writer.app}: {len(writer.confirmed)} commits, {lost} lost, none for {writer.gap:.1f} s")
    for writer in writers:
        assert not writer.lost(host) and writer.gap <= 60 and writer.idle < 2


def converged(pair: System) -> Run:
    run = pair.play("site.yml")
    assert run.code == 0, run.tail
    again = pair.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    return run


def test_a_check_of_bare_droplets_says_that_the_second_one_will_be_a_copy(pair: System) -> None:
    run = pair.play("site.yml", "--check", "--diff")
    assert run.code == 0 and "clone one" in run.output, run.tail


def test_the_second_droplet_streams_and_a_second_run_changes_nothing(pair: System) -> None:
    converged(pair)
    assert ask("two", FOLLOWS) == "t"
    assert ask("one", "SHOW synchronous_standby_names") == "ANY 1 (shipshape_two)"
    assert ask("one", "SELECT slot_name, active FROM pg_replication_slots") == "shipshape_two|t"
    with Writers(0) as writers:
        time.sleep(2)
    assert all(writer.confirmed and not writer.lost("two") for writer in writers)
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
        assert run.code != 0 and run.count("changed") == 0, run.tail
        refusal = "bytes of the write-ahead log behind one; the limit is 16777216"
        assert all(words in run.output for words in (refusal, "Let it catch up", "accept_loss=true")), run.tail
    finally:
        console("two", f"kill -CONT $({RECEIVER})")
    assert ask("one", "SELECT pg_is_in_recovery()") == "f" and ask("two", "SELECT pg_is_in_recovery()") == "t"


def test_a_primary_that_has_lost_everything_is_replaced_without_the_loss_of_a_commit(pair: System) -> None:
    assert console("one", "cat /etc/shipshape/postgresql/primary") == "one 0"
    before = console("front", "readlink /srv/direct/current")
    # What is new in the repository is for a deploy to bring in, not for a failover.
    (pair.folder / "code" / "serve.py").write_text("raise SystemExit('not tonight')", encoding="utf-8")
    repository.publish(pair.folder / "code", "replica")
    with Writers(1_000_000) as writers:
        time.sleep(3)
        console("one", "pkill -9 -u postgres; rm -rf /var/lib/postgresql/*/main")
        run = pair.play("playbooks/promote.yml")
        assert run.code == 0 and "two is the primary" in run.output, run.tail
        time.sleep(2)
    report("two", writers)
    for host in DATABASES:
        assert console(host, "cat /etc/shipshape/postgresql/primary") == "two 1"
    assert console("front", "readlink /srv/direct/current") != before
    (pair.folder / "code" / "serve.py").write_text(SERVER, encoding="utf-8")
    repository.publish(pair.folder / "code", "replica")


def test_the_next_run_makes_a_replica_of_the_old_primary(pair: System) -> None:
    converged(pair)
    assert ask("one", FOLLOWS) == "t"
    assert ask("two", "SHOW synchronous_standby_names") == "ANY 1 (shipshape_one)"
    for name in DOMAINS:
        count = "SELECT count(*), max(number) FROM beats"
        assert ask("one", count, name) == ask("two", count, name)
    assert console("one", "systemctl is-enabled pgbouncer.service || true") == "disabled"
    verified = pair.play("playbooks/verify.yml")
    assert verified.code == 0, verified.tail


def test_the_way_back_loses_nothing_either_and_keeps_the_old_data(pair: System) -> None:
    with Writers(2_000_000) as writers:
        time.sleep(2)
        run = pair.play("playbooks/promote.yml")
        assert run.code == 0, run.tail
        time.sleep(2)
    report("one", writers)
    # Fenced: it starts neither at boot nor by hand.
    assert "masked" in console("two", "systemctl is-enabled postgresql@15-main || true")
    run = pair.play("site.yml")
    assert run.code == 0, run.tail
    assert ask("two", FOLLOWS) == "t"
    assert console("two", "ls -d /var/lib/postgresql/*/main.kept-*/PG_VERSION")


def test_a_droplet_that_is_gone_is_replaced_once_somebody_says_that_it_stays_so(pair: System) -> None:
    with Writers(3_000_000) as writers:
        time.sleep(2)
        docker("kill", "shipshape-replica-one")
        run = pair.play("playbooks/promote.yml")
        assert run.code != 0 and run.count("changed") == 0 and "-e fenced=true" in run.output, run.tail
        run = pair.play("playbooks/promote.yml", "-e", "fenced=true")
        assert run.code == 0 and "could not be reached and was not stopped" in run.output, run.tail
        time.sleep(2)
    report("two", writers)


def primary_and_next() -> tuple[str, str]:
    """The primary, and which of the first two droplets is a replica of it. The third one is another."""
    found = console("three", "cut -d' ' -f1 /etc/shipshape/postgresql/primary")
    return found, next(host for host in DATABASES if host != found)


def server(host: str) -> str:
    """Of a replica that is not made anew, and not even restarted, the same."""
    return ask(host, "SELECT pg_postmaster_start_time()") + console(host, "ls /var/lib/postgresql/15")


def test_of_two_replicas_each_streams_and_commits_wait_for_either_of_them(trio: System) -> None:
    first, second = primary_and_next()
    assert ask(second, FOLLOWS) == ask("three", FOLLOWS) == "t"
    assert ask(first, "SHOW synchronous_standby_names") == f"ANY 1 (shipshape_{second}, shipshape_three)"
    run = trio.play("playbooks/promote.yml")
    assert run.code != 0 and run.count("changed") == 0, run.tail
    assert f"Say which replica is to be the primary: -e to={second} or -e to=three" in run.output, run.tail


def test_the_other_replica_follows_the_one_that_was_promoted_and_commits_wait_for_it(trio: System) -> None:
    first, second = primary_and_next()
    before = server("three")
    with Writers(4_000_000) as writers:
        time.sleep(2)
        run = trio.play("playbooks/promote.yml", "-e", f"to={second}")
        assert run.code == 0, run.tail
        time.sleep(2)
    assert f"only three will follow {second}" in " ".join(run.output.split()), run.tail
    report(second, writers)
    assert ask("three", FOLLOWS) == "t" and server("three") == before
    assert ask(second, "SHOW synchronous_standby_names") == "ANY 1 (shipshape_three)"
    assert ask(second, "SELECT slot_name, active FROM pg_replication_slots") == "shipshape_three|t"
    assert not any(writer.lost("three") for writer in writers)
    converged(trio)
    assert ask(first, FOLLOWS) == ask("three", FOLLOWS) == "t" and server("three") == before
    assert ask(second, "SHOW synchronous_standby_names") == f"ANY 1 (shipshape_{first}, shipshape_three)"
    verified = trio.play("playbooks/verify.yml")
    assert verified.code == 0, verified.tail


def test_when_the_primary_is_gone_only_the_replica_is_promoted_that_has_all_that_was_confirmed(trio: System) -> None:
    first, second = primary_and_next()
    before = server(second)
    cut = f"INPUT --source {HOSTS[first]} --jump DROP"
    console(second, f"iptables --insert {cut}")
    with Writers(5_000_000) as writers:
        time.sleep(2)
        docker("kill", f"shipshape-replica-{first}")
        console(second, f"iptables --delete {cut}")
        # It has what it had, though its receiver counts anew from the beginning of a segment.
        console("three", "systemctl restart postgresql@15-main")
        run = trio.play("playbooks/promote.yml", "-e", f"to={second}", "-e", "fenced=true")
        assert run.code != 0 and run.count("changed") == 0, run.tail
        said = " ".join(run.output.split())
        assert re.search(rf"three has \d+ bytes of the write-ahead log that {second} lacks", said), run.tail
        assert "Promote that one: -e to=three" in said, run.tail
        run = trio.play("playbooks/promote.yml", "-e", "to=three", "-e", "fenced=true")
        assert run.code == 0 and f"only {second} will follow three" in " ".join(run.output.split()), run.tail
        time.sleep(2)
    report("three", writers)
    assert ask(second, FOLLOWS) == "t" and server(second) == before
    assert ask("three", "SHOW synchronous_standby_names") == f"ANY 1 (shipshape_{second})"
    assert not any(writer.lost(second) for writer in writers)
