"""An app by way of PgBouncer and Redis on another droplet, as an inventory asks for it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.lab import settings
from tests.site import malar_market, system
from tests.site.system import System
from tests.site.test_more_droplets import open_ports

pytestmark = pytest.mark.skipif(
    not settings.EVERYTHING, reason="two systems and the roles' scenarios have pools and Redis, too: make test-all"
)

DOMAINS = ("api.pooled.test",)
API = f"https://{DOMAINS[0]}"
HOSTS = {"front": "10.77.0.71", "store": "10.77.0.72"}


def inventory(folder: Path) -> Path:
    """The inventory malar-market with the database and Redis on a droplet of their own, and a pool."""
    (folder / "inventory" / "group_vars" / "all").mkdir(parents=True)
    written = yaml.safe_load((malar_market.INVENTORY / "group_vars" / "all" / "main.yml").read_text())
    written["apps"]["malar-api"] |= {"domains": [*DOMAINS]}
    written["apps"]["malar-api"]["database"]["pool"] = 20
    # What is looked at here needs neither.
    del written["apps"]["malar-web"], written["backup"]
    written["pgbouncer_port"] = 6543
    (folder / "inventory" / "group_vars" / "all" / "main.yml").write_text(yaml.safe_dump(written))
    groups = {"proxy": "front", "app": "front", "database": "store"}
    hosts: dict[str, Any] = {group: {"hosts": {host: {}}} for group, host in groups.items()}
    (folder / "inventory" / "hosts.yml").write_text(yaml.safe_dump(hosts))
    return folder / "inventory"


@pytest.fixture(scope="module")
def pooled(tmp_path_factory: pytest.TempPathFactory) -> Iterator[System]:
    folder = tmp_path_factory.mktemp("pooled")
    where = System(inventory(folder), HOSTS, folder, {}, DOMAINS)
    system.start("pooled", HOSTS, DOMAINS)
    try:
        yield where
    finally:
        system.stop("pooled", HOSTS)


def test_pools_and_memory_that_do_not_fit_are_refused_before_anything_changes(pooled: System) -> None:
    too_much = '{"postgresql_settings": {"max_connections": 27}}'
    run = pooled.play("site.yml", "-e", too_much)
    assert run.code != 0 and "The pools need 28 connections" in run.output and "malar-api 20 + 5" in run.output, (
        run.tail
    )
    run = pooled.play("site.yml", "-e", '{"redis": {"cache": {"memory": "900gb"}}}')
    assert run.code != 0 and "Redis is to have 921600 MB (cache 900gb)" in run.output, run.tail
    assert run.count("changed") == 0, run.tail


def test_the_app_is_served_by_way_of_both_and_nobody_else_gets_there(pooled: System) -> None:
    run = pooled.play("site.yml")
    assert run.code == 0, run.tail
    health = pooled.fetch(f"{API}/health")
    assert (health.status, health.json()["database"], health.json()["cache"]) == (200, "ok", "ok")
    urls = pooled.ssh(
        "grep -o '^[A-Z_]*URL=.*@10[^/]*' /srv/malar-api/current/env | sed 's/=.*@/ /' | sort", host="front"
    )
    redis, *_ = [line.split(":")[1] for line in urls.splitlines() if line.startswith("REDIS_URL")]
    assert urls.splitlines() == [
        f"DATABASE_URL {HOSTS['store']}:6543",
        f"DIRECT_DATABASE_URL {HOSTS['store']}:5432",
        f"REDIS_CACHE_URL {HOSTS['store']}:{redis}",
        f"REDIS_URL {HOSTS['store']}:{redis}",
    ]
    assert open_ports(HOSTS["store"]) == ["22"]
    # The app's requests come by TLS to the pooler; its migration was not among them.
    console = "runuser -u pgbouncer -- psql -XAt -F ' ' -h /var/run/postgresql -p 6543 pgbouncer -c 'SHOW CLIENTS'"
    clients = pooled.ssh(f"cd /; {console} | grep malar_api", host="store")
    assert clients and all("TLSv1" in line for line in clients.splitlines()), clients
    script = pooled.ssh("cat /srv/malar-api/current/migrate", host="front")
    assert "DATABASE_URL=$DIRECT_DATABASE_URL" in script


def test_a_second_run_changes_nothing_and_all_of_it_is_in_force(pooled: System) -> None:
    again = pooled.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    verified = pooled.play("playbooks/verify.yml")
    assert verified.code == 0 and "Log in through PgBouncer as each app does" in verified.output, verified.tail


def test_the_app_stays_as_it_is_when_the_host_of_its_database_fails_and_changes_by_the_same_command(
    pooled: System,
) -> None:
    release = "readlink /srv/malar-api/current; systemctl show -p MainPID 'malar-api@*'"
    before = pooled.ssh(release, host="front")
    pooled.extra["vault_malar_sentry_dsn"] = "https://another@sentry.test/1"
    tags = ("--tags", "postgresql,app")
    run = pooled.play("site.yml", *tags, "-e", '{"postgresql_settings": {"shared_buffers": "much"}}')
    assert run.code != 0 and run.count("changed") == 0, run.tail
    said = " ".join(run.output.split())
    assert "store failed in this run (see above), and the apps of front need what is there: " in said, run.tail
    assert "the database of malar-api, Redis for malar-api. They were left as they were." in said, run.tail
    assert pooled.ssh(release, host="front") == before
    assert pooled.fetch(f"{API}/health").status == 200
    run = pooled.play("site.yml", *tags)
    assert run.code == 0, run.tail
    assert pooled.ssh(release, host="front") != before


def test_what_leaves_the_inventory_ends_once_the_app_has_changed_over_and_the_data_of_redis_stays(
    pooled: System,
) -> None:
    path = pooled.inventory / "group_vars" / "all" / "main.yml"
    before = path.read_text()
    pooled.ssh("systemctl start redis-server@cache; ls -d /var/lib/redis/cache", host="store")
    written = yaml.safe_load(before)
    del written["redis"], written["apps"]["malar-api"]["redis"], written["apps"]["malar-api"]["database"]["pool"]
    path.write_text(yaml.safe_dump(written))
    files = "ls -d /var/lib/redis/cache /etc/pgbouncer/shipshape.ini"
    units = f"systemctl is-active pgbouncer redis-server@cache || true; {files}"
    # Where the app is left out, it goes on coming this way.
    limited = pooled.play("site.yml", "--limit", "store", "--tags", "app")
    assert limited.code == 0, limited.tail
    assert pooled.ssh(units, host="store").split()[:2] == ["active", "active"]
    assert pooled.fetch(f"{API}/health").status == 200
    run = pooled.play("site.yml", "--diff")
    assert run.code == 0 and "stop redis-server@cache.service" in run.output, run.tail
    assert "stop pgbouncer.service" in run.output, run.tail
    found = pooled.ssh(f"({units}) 2>/dev/null || true", host="store")
    assert found.split() == ["inactive", "inactive", "/var/lib/redis/cache"]
    assert ":5432/" in pooled.ssh("grep ^DATABASE_URL= /srv/malar-api/current/env", host="front")
    assert pooled.fetch(f"{API}/health").json()["database"] == "ok"
    again = pooled.play("site.yml", "--diff")
    assert (again.code, again.count("changed")) == (0, 0), again.tail
    path.write_text(before)
