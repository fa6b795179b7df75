"""What the apps of a host need of others."""

from __future__ import annotations

from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan

from tests.unit.plan_cases import API, APPS, GROWN, ONE, THREE, WEB


def test_passwords_that_are_made_on_the_database_host_are_asked_for_by_the_app_hosts() -> None:
    login = {"role": "malar_api", "host": "db1", "path": "/etc/shipshape/postgresql/malar_api.password"}
    assert plan(APPS, THREE, "app1")["database_logins"] == [login]
    assert plan(APPS, THREE, "web1")["database_logins"] == []
    assert "password" not in plan(APPS, THREE, "db1")["postgresql_roles"][0]


def test_apps_need_the_hosts_of_their_database_of_redis_and_of_their_proxies_and_static_ones_need_none() -> None:
    apps = {"malar-api": {**API, "redis": "cache"}, "quiet": {**API, "domains": [], "database": None}, "malar-web": WEB}
    assert plan(apps, THREE, "app1")["needs"] == [
        {"host": "db1", "has": ["the database of malar-api", "Redis for malar-api"]},
        {"host": "web1", "has": ["the proxy of malar-api"]},
    ]
    assert [row["host"] for row in plan(APPS, GROWN, "web2")["needs"]] == ["db1", "web1"]
    for topology, host in ((THREE, "web1"), (THREE, "db1"), (ONE, "web1")):
        assert plan(apps, topology, host)["needs"] == []
