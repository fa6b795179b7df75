"""Which databases are pooled, for whom, and by which URL an app comes to one."""

from __future__ import annotations

from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps

from tests.unit.plan_cases import API, APPS, ONE, PASSWORDS, THREE, app

POOLED = {**API, "database": {"pool": 20}}


def test_an_app_with_a_pool_comes_by_way_of_pgbouncer_and_migrates_past_it() -> None:
    env = app(ONE, "web1", database={"pool": 20})["env"]
    assert env["DATABASE_URL"] == "postgresql://malar_api:p%40ss%2Fw%3Ard@127.0.0.1:6432/malar_api"
    assert env["DIRECT_DATABASE_URL"] == "postgresql://malar_api:p%40ss%2Fw%3Ard@127.0.0.1:5432/malar_api"
    (row,) = plan_apps({"malar-api": POOLED}, THREE, "app1", PASSWORDS, pooler=6543)
    assert "@10.0.0.3:6543/" in row["env"]["DATABASE_URL"] and "@10.0.0.3:5432/" in row["env"]["DIRECT_DATABASE_URL"]
    mine = app(ONE, "web1", database={"pool": 20}, env={"DATABASE_URL": "postgresql+asyncpg://u:p@h/d"})["env"]
    assert mine["DATABASE_URL"] == "postgresql+asyncpg://u:p@h/d" and "DIRECT_DATABASE_URL" not in mine


def test_an_app_in_the_database_of_another_has_a_pool_of_its_own_there() -> None:
    apps = {"malar-api": POOLED, "desk": {**API, "domains": [], "database": {"in": "malar_api", "pool": 5}}}
    owner, guest = plan(apps, ONE, "web1")["pgbouncer_pools"]
    assert "entry" not in owner and owner["database"] == "malar_api"
    assert guest == {
        "name": "desk",
        "database": "malar_api",
        "entry": "desk",
        "role": "desk",
        "size": 5,
        "addresses": [],
    }
    (row,) = [row for row in plan_apps(apps, ONE, "web1", PASSWORDS | {"desk": "x"}) if row["name"] == "desk"]
    assert row["env"]["DATABASE_URL"] == "postgresql://desk:x@127.0.0.1:6432/desk"
    assert row["env"]["DIRECT_DATABASE_URL"] == "postgresql://desk:x@127.0.0.1:5432/malar_api"


def test_a_container_finds_the_pooler_by_the_socket_too() -> None:
    container = {"type": "container", "image": "r.in/ocr:1", "database": {"pool": 5, "password": "x"}}
    (row,) = plan_apps({"ocr": container}, ONE, "web1", {})
    assert row["env"]["DATABASE_URL"] == "postgresql://ocr:x@/ocr?host=/var/run/postgresql&port=6432"
    assert row["env"]["DIRECT_DATABASE_URL"] == "postgresql://ocr:x@/ocr?host=/var/run/postgresql"


def test_pools_are_on_the_database_host_for_the_app_hosts_alone() -> None:
    apps = {"malar-api": POOLED, "desk": {**API, "domains": [], "database": {}}}
    planned = plan(apps, THREE, "db1", pooler=6543)
    assert planned["pgbouncer_pools"] == [
        {"name": "malar-api", "database": "malar_api", "role": "malar_api", "size": 20, "addresses": ["10.0.0.2/32"]}
    ]
    assert planned["pgbouncer_listen_addresses"] == ["127.0.0.1", "10.0.0.3"]
    rule = {"name": "pgbouncer", "port": 6543, "protocol": "tcp", "sources": ["10.0.0.2/32"]}
    assert rule in planned["hardening_contributed_firewall_rules"]
    assert plan(apps, THREE, "app1")["pgbouncer_pools"] == []
    one = plan(apps, ONE, "web1")
    assert one["pgbouncer_listen_addresses"] == ["127.0.0.1"] and one["pgbouncer_pools"][0]["addresses"] == []
    assert [row["port"] for row in one["listens"] if row["name"] == "pgbouncer"] == [6432]
    assert "pgbouncer" not in [row["name"] for row in plan(APPS, THREE, "db1")["listens"]]
