"""PostgreSQL's data moves from 13 to 15 and back, with an app, its pool and its backups, and with runs that are killed.

The droplets have Debian 12, whose version is 15, and take 13 from Debian 11. The tests build on each other, in order.
The last one has a primary and its replica.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import droplet, settings
from tests.lab.engine import LabError, docker
from tests.site import malar_market, system
from tests.site.system import PROJECT, Run, System, descendants, environment

pytestmark = pytest.mark.skipif(not settings.EVERYTHING, reason="a quarter of an hour of upgrades: make test-all")

NAME, HOSTS = "shipshape-major-store", {"store": "10.77.0.120"}
PAIR = {"first": "10.77.0.118", "second": "10.77.0.119"}
DOMAINS = ("api.major.test",)
API = f"https://{DOMAINS[0]}"
PLAYBOOK = "playbooks/maintenance/upgrade_postgresql.yml"
NOTE = "/var/lib/shipshape/postgresql/upgrade.json"
LOCK = "/run/shipshape-postgresql-upgrade.lock"
OLD, NEW = "13", "15"
ROWS = 20000
#: Debian 11 beside Debian 12, for what only the former has. Its libraries have names of their own.
SOURCE = """
echo 'deb http://deb.debian.org/debian bullseye main' >/etc/apt/sources.list.d/bullseye.list
printf 'Package: *\\nPin: release n=bullseye\\nPin-Priority: 100\\n' >/etc/apt/preferences.d/bullseye
"""


def write_inventory(folder: Path, version: str) -> Path:
    """The API of malar-market with a pool and a log of every moment, on one droplet, and PostgreSQL of that version."""
    (folder / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    written = yaml.safe_load((malar_market.INVENTORY / "group_vars" / "all" / "main.yml").read_text())
    written["apps"]["malar-api"] |= {"domains": [*DOMAINS]}
    written["apps"]["malar-api"]["database"]["pool"] = 20
    del written["apps"]["malar-web"]
    written["backup"]["recovery_days"] = 7
    written["postgresql_version"] = version
    (folder / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(written))
    hosts: dict[str, Any] = {group: {"hosts": {"store": {}}} for group in ("proxy", "app", "database")}
    (folder / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("major")
    bucket = system.bucket("shipshape-major")
    where = System(write_inventory(folder / "inventory", OLD), HOSTS, folder, bucket, DOMAINS)
    system.start("major", HOSTS, DOMAINS)
    docker("exec", NAME, "sh", "-euc", SOURCE)
    run = where.play("site.yml")
    assert run.code == 0, run.tail
    # The first backup, which that run has begun.
    where.ssh("timeout 90 sh -c 'until [ -e /var/lib/shipshape/pgbackrest/last-success ]; do sleep 1; done'")
    sql(
        where,
        "SET ROLE malar_api; CREATE TABLE sales (id bigserial PRIMARY KEY, grams int, name text);"
        f"INSERT INTO sales (grams, name) SELECT n, 'rose ' || n FROM generate_series(1, {ROWS}) n;"
        "CREATE INDEX ON sales (name); CREATE VIEW heavy AS SELECT * FROM sales WHERE grams > 100;",
    )
    declare(where, NEW)
    try:
        yield where
    finally:
        system.stop("major", HOSTS)


def declare(store: System, version: str) -> None:
    write_inventory(store.inventory, version)


def sql(store: System, statements: str, database: str = "malar_api") -> str:
    return store.ssh(
        f"cd /; runuser -u postgres -- psql -XqAt -v ON_ERROR_STOP=1 {database} <<'SQL'\n{statements}\nSQL"
    )


def state(store: System) -> dict[str, str]:
    """What must not differ between before and after."""
    return {
        "sales": sql(store, "SELECT count(*), sum(hashtext(name)), max(id) FROM sales"),
        "verifiers": sql(store, "SELECT rolname, rolpassword FROM pg_authid WHERE rolname !~ '^pg_' ORDER BY 1"),
        "extensions": sql(store, "SELECT extname FROM pg_extension ORDER BY 1"),
        "next": sql(store, "SELECT last_value FROM sales_id_seq"),
    }


def version(store: System) -> str:
    return sql(store, "SELECT current_setting('server_version_num')::int / 10000", "postgres")


def clusters(store: System) -> str:
    return store.ssh("pg_lsclusters --no-header | awk '{print $1, $3, $4}'")


def note(store: System) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(store.ssh(f"cat {NOTE} 2>/dev/null || echo '{{}}'"))
    return found


def healthy(store: System) -> bool:
    answer = store.fetch(f"{API}/health")
    return answer.status == 200 and answer.json()["database"] == "ok"


def kill_at(store: System, phase: str, seconds: float, *arguments: str) -> str:
    """Run the playbook; when the note says so, and as many seconds later, kill controller and module, by SIGKILL."""
    process = subprocess.Popen(
        store.command(PLAYBOOK, *arguments), cwd=PROJECT, env=environment(), text=True, stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip
    # The module is the one who holds the lock; its program came by standard input and has no name.
    try:
        killed = docker(
            "exec", NAME, "timeout", "120", "bash", "-c",
            f"until grep -qs '\"phase\": \"{phase}\"' {NOTE}; do sleep 0.02; done; sleep {seconds}; "
            f"pids=$(find /proc/[0-9]*/fd -lname {LOCK} 2>/dev/null | cut -d/ -f3); echo $pids; kill -9 $pids",
        )  # fmt: skip
    except LabError:  # it never came to that
        raise AssertionError(process.communicate(timeout=300)[0]) from None
    for child in descendants(process.pid):
        with suppress(ProcessLookupError):  # it has just ended by itself
            os.kill(child, signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert killed.strip(), output
    return output


@contextmanager
def watched(store: System) -> Iterator[list[float]]:
    """How long each outage was, as somebody sees it who asks the app for its health five times a second."""
    outages: list[float] = []
    over = threading.Event()

    def ask() -> None:
        down = 0.0
        while not over.is_set():
            asked = time.monotonic()
            try:
                well = healthy(store)
            except AssertionError:  # no answer within half a minute
                well = False
            # Who is made to wait is without an answer, too.
            if not down and (not well or time.monotonic() - asked > 1):
                down = asked
            if well and down:
                outages.append(time.monotonic() - down)
                down = 0.0
            over.wait(0.2)
        if down:
            outages.append(time.monotonic() - down)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield outages
    finally:
        over.set()
        thread.join()


def refused(store: System, run: Run, *words: str) -> None:
    assert run.code != 0, run.tail
    assert all(word in run.output for word in words), run.tail
    assert run.count("changed") == 0 and version(store) == OLD and healthy(store), run.tail


def test_another_version_in_the_inventory_is_refused_before_anything_changes(store: System) -> None:
    before = sorted(system.changes(NAME))
    for arguments in ((), ("--check",), ("--tags", "pgbackrest"), ("--tags", "postgresql")):
        run = store.play("site.yml", *arguments)
        refused(store, run, f"postgresql_version is {NEW}", f"cluster {OLD}/main", PLAYBOOK)
    assert clusters(store) == f"{OLD} 5432 online"
    assert f"postgresql-{NEW}" not in store.ssh("dpkg-query -W")
    names = {line.split()[0] for line in set(before) ^ set(system.changes(NAME))}
    # The database, its log and Redis live on.
    assert not [name for name in names if name.startswith(("/etc/", "/usr/", "/srv/"))]


def test_a_check_says_what_stands_in_the_way_and_changes_nothing(store: System) -> None:
    sql(store, "SELECT pg_create_physical_replication_slot('feed')")
    store.ssh("touch -d '3 days ago' /var/lib/shipshape/pgbackrest/last-success")
    run = store.play(PLAYBOOK, "--check")
    refused(store, run, "the physical replication slot feed would be lost", "the last backup is 72 hours old")
    sql(store, "SELECT pg_drop_replication_slot('feed')")
    store.ssh("touch /var/lib/shipshape/pgbackrest/last-success")
    run = store.play(PLAYBOOK, "--check", "--diff")
    assert run.code == 0 and re.search(rf"PostgreSQL {OLD}\.\d+ .*can be moved to {NEW}", run.output), run.tail
    assert clusters(store) == f"{OLD} 5432 online" and note(store) == {}


def test_a_rehearsal_asks_pg_upgrade_and_the_apps_notice_nothing(store: System) -> None:
    with watched(store) as outages:
        run = store.play(PLAYBOOK, "-e", "prepare=true")
    assert run.code == 0 and f"pg_upgrade --check of {NEW} has nothing to say against it" in run.output, run.tail
    assert outages == [] and version(store) == OLD
    assert clusters(store) == f"{OLD} 5432 online\n{NEW} 5433 down"
    # The package was kept from making and starting one of its own.
    assert store.ssh(f"grep -v '^#' /etc/postgresql/{NEW}/main/start.conf").strip() == "disabled"
    assert store.ssh("ls /etc/postgresql-common/createcluster.d") == ""


def test_what_pg_upgrade_refuses_leaves_the_old_server_serving(store: System) -> None:
    sql(store, "CREATE TABLE odd (a regprocedure)")  # by its number, which is another in the new cluster
    run = store.play(PLAYBOOK)
    assert run.code != 0 and "Nothing was switched: cluster 13/main serves as before" in run.output, run.tail
    assert "malar_api" in run.output and "odd.a" in run.output, run.tail
    sql(store, "DROP TABLE odd")
    assert version(store) == OLD and healthy(store)


def test_a_copy_that_breaks_off_is_put_back_at_once(store: System) -> None:
    before = state(store)
    killer = threading.Thread(
        target=docker,
        args=(
            "exec", NAME, "timeout", "300", "bash", "-c",
            f"until grep -qs '\"phase\": \"stopped\"' {NOTE}; do sleep 0.02; done; "
            f"until pids=$(pgrep -f '^/usr/lib/postgresql/{NEW}/bin/pg_upgrade'); do sleep 0.02; done; kill -9 $pids",
        ),
    )  # fmt: skip
    killer.start()
    run = store.play(PLAYBOOK)
    killer.join()
    assert run.code != 0 and f"The old cluster, {OLD}/main, serves again, as it was" in run.output, run.tail
    assert version(store) == OLD and healthy(store) and state(store) == before and note(store) == {}
    assert not Path(store.ssh("ls -d /etc/postgresql/15/main 2>/dev/null || true")).name


@pytest.mark.parametrize("seconds", [0, 0.7, 1.5, 3])
def test_a_run_killed_before_the_switch_leaves_what_the_next_puts_back(store: System, seconds: float) -> None:
    before = state(store)
    kill_at(store, "stopped", seconds)
    assert note(store)["phase"] == "stopped", "it was killed too late to see this"
    run = store.play(PLAYBOOK, "-e", "prepare=true")
    assert run.code == 0, run.tail
    assert "was cut off before its switch; the old cluster serves again" in run.output, run.tail
    assert version(store) == OLD and healthy(store) and state(store) == before


def test_a_droplet_that_restarts_in_the_middle_has_its_old_server(store: System) -> None:
    before = state(store)
    kill_at(store, "stopped", 1)
    docker("restart", "--time=20", NAME)

    droplet.wait_for_boot(NAME)
    assert version(store) == OLD and state(store) == before


def test_a_run_killed_after_the_switch_is_finished_by_the_next(store: System) -> None:
    before = state(store)
    kill_at(store, "switched", 0)
    run = store.play(PLAYBOOK)
    assert run.code == 0, run.tail
    assert re.search(rf"PostgreSQL {OLD}\.\d+ .*-> {NEW}\.\d+ .*\(copy\)", run.output), run.tail
    assert "the same before and after" in run.output and "full backup" in run.output, run.tail
    assert version(store) == NEW and healthy(store) and state(store) == before
    assert clusters(store) == f"{OLD} 5433 down\n{NEW} 5432 online"


def test_all_is_as_declared_afterwards_and_the_backups_go_on(store: System) -> None:
    run = store.play("site.yml", "--diff")
    assert (run.code, run.count("changed")) == (0, 0), run.tail
    verified = store.play("playbooks/verify.yml")
    assert verified.code == 0, verified.tail
    assert "any moment" in store.ssh("shipshape-pgbackrest list")
    for playbook in ("backup", "drill"):
        run = store.play(f"playbooks/{playbook}.yml")
        assert run.code == 0, run.tail
    again = store.play(PLAYBOOK)
    assert (again.code, again.count("changed")) == (0, 0), again.tail


def test_the_way_back_names_what_it_loses_and_takes_it_only_when_told(store: System) -> None:
    before = state(store)
    sql(store, "INSERT INTO sales (grams, name) VALUES (1, 'late')")
    time.sleep(1)  # until the server's statistics know of it
    run = store.play(PLAYBOOK, "-e", "back=true")
    assert run.code != 0 and "1 rows written in public.sales" in run.output and "accept_loss=true" in run.output, (
        run.tail
    )
    assert version(store) == NEW
    with watched(store) as outages:
        run = store.play(PLAYBOOK, "-e", "back=true", "-e", "accept_loss=true")
    assert run.code == 0 and f"set postgresql_version to '{OLD}'" in run.output, run.tail
    assert version(store) == OLD and healthy(store) and state(store) == before
    print(f"way back: {outages}")
    refused(store, store.play("site.yml"), f"postgresql_version is {NEW}", f"cluster {OLD}/main")
    declare(store, OLD)
    run = store.play("site.yml")
    assert (run.code, run.count("changed")) == (0, 0), run.tail


def test_an_upgrade_in_one_go_says_how_long_apps_waited_and_that_is_what_they_saw(store: System) -> None:
    declare(store, NEW)
    before = state(store)
    with watched(store) as outages:
        run = store.play(PLAYBOOK)
    assert run.code == 0, run.tail
    said = re.search(r"without the database for ([0-9.]+) s", run.output)
    assert said, run.tail
    print(f"said {said[1]} s, seen {outages}")
    assert sum(outages) <= float(said[1]) + 5 < 60
    assert version(store) == NEW and healthy(store) and state(store) == before


def test_links_take_the_place_of_copies_and_of_the_way_back(store: System) -> None:
    run = store.play(PLAYBOOK, "-e", "back=true", "-e", "accept_loss=true")
    assert run.code == 0, run.tail
    before = state(store)
    run = store.play(PLAYBOOK, "-e", "link=true", "-e", "backup_hours=0")
    assert run.code == 0 and "(link)" in run.output and "no way back" in run.output, run.tail
    assert version(store) == NEW and healthy(store) and state(store) == before
    run = store.play(PLAYBOOK, "-e", "back=true")
    assert run.code != 0 and "both clusters are the same files" in run.output, run.tail


def declare_pair(inventory: Path, version: str, *hosts: str) -> None:
    """Database droplets without an app, with PostgreSQL of that version."""
    (inventory / "group_vars" / "all").mkdir(parents=True, exist_ok=True)
    variables = {
        "admins": [{"name": "deploy", "ssh_keys": ["{{ vault_malar_admin_key }}"]}],
        "docker": False,
        "postgresql_version": version,
        "postgresql_roles": [{"name": "shop"}],
        "postgresql_databases": [{"name": "shop", "owner": "shop"}],
    }
    (inventory / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(variables))
    (inventory / "hosts.yml").write_text(yaml.safe_dump({"database": {"hosts": {host: {} for host in hosts}}}))


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[System]:
    system.start("twin", PAIR)
    for name in PAIR:
        docker("exec", f"shipshape-twin-{name}", "sh", "-euc", SOURCE)
    try:
        yield System(tmp_path / "inventory", PAIR, tmp_path, {})
    finally:
        system.stop("twin", PAIR)


def test_a_server_with_a_replica_moves_without_it_in_the_way_that_the_refusal_says(pair: System) -> None:
    def follows() -> bool:
        streams = "SELECT count(*) FROM pg_stat_wal_receiver WHERE status = 'streaming'"
        return pair.ssh(f'cd /; runuser -u postgres -- psql -XAtqc "{streams}"', "second") == "1"

    declare_pair(pair.inventory, OLD, *PAIR)
    run = pair.play("site.yml")
    assert run.code == 0 and follows(), run.tail

    declare_pair(pair.inventory, NEW, *PAIR)
    run = pair.play(PLAYBOOK, "-e", "backup_hours=0")
    assert run.code != 0 and run.count("changed") == 0 and follows(), run.tail
    assert "first has replicas: second. They cannot follow it" in run.output, run.tail
    assert "second is a replica of first: its data is a copy" in run.output, run.tail

    declare_pair(pair.inventory, NEW, "first")
    run = pair.play("site.yml", "-e", f"postgresql_version={OLD}")
    assert run.code == 0, run.tail
    pair.ssh(f"pg_dropcluster --stop {OLD} main", "second")
    run = pair.play(PLAYBOOK, "-e", "backup_hours=0")
    assert run.code == 0, run.tail

    declare_pair(pair.inventory, NEW, *PAIR)
    run = pair.play("site.yml")
    assert run.code == 0 and version(pair) == NEW and follows(), run.tail
    again = pair.play(PLAYBOOK)
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    run = pair.play(PLAYBOOK, "-e", "back=true")
    assert run.code != 0 and "first has replicas: second" in run.output and version(pair) == NEW, run.tail
