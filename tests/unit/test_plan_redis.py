"""What Redis is told of its instances, and where an app finds its own."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.plugin_utils.names import redis_port
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_common import PlanError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

from tests.unit.plan_cases import ONE, THREE

REDIS: dict[str, Any] = {
    "cache": {"memory": "128mb"},
    "jobs-2": {"use": "queue", "port": 16100, "policy": "allkeys-lfu"},
}
APPS: dict[str, Any] = {
    "shop": {
        "type": "command",
        "source": {"git": "https://g.in/x.git"},
        "command": "./x",
        "redis": ["jobs-2", "cache"],
    },
    "desk": {
        "type": "command",
        "source": {"git": "https://g.in/x.git"},
        "command": "./x",
        "packages": ["redis-server"],
    },
}


def test_an_instance_has_what_its_use_asks_for_unless_the_inventory_says_otherwise() -> None:
    cache, jobs = plan(APPS, ONE, "web1", redis=REDIS)["redis_instances"]
    assert cache == {
        "name": "cache", "port": redis_port("cache"), "users": ["shop"], "memory": "128mb", "policy": "allkeys-lru",
        "persistence": "none", "addresses": ["127.0.0.1"], "sources": [],
    }  # fmt: skip
    assert (jobs["policy"], jobs["persistence"], jobs["memory"], jobs["port"]) == ("allkeys-lfu", "aof", "64mb", 16100)


def test_an_app_gets_a_url_for_each_of_its_instances_and_the_first_under_the_usual_name() -> None:
    env = plan_apps(APPS, ONE, "web1", {"redis:shop": "p"}, "shop", redis=REDIS)[0]["env"]
    assert env["REDIS_URL"] == env["REDIS_JOBS_2_URL"] == "redis://shop:p@127.0.0.1:16100/0"
    assert env["REDIS_CACHE_URL"] == f"redis://shop:p@127.0.0.1:{redis_port('cache')}/0"
    assert "REDIS_URL" not in plan_apps(APPS, ONE, "web1", {}, "desk", redis=REDIS)[0]["env"]
    assert "REDIS_URL" not in plan_apps(APPS, ONE, "web1", None, "shop", redis=REDIS)[0]["env"]
    with pytest.raises(PlanError, match="password of app shop for Redis was not read"):
        plan_apps(APPS, ONE, "web1", {}, "shop", redis=REDIS)


def test_from_other_hosts_it_is_reached_by_the_app_hosts_alone() -> None:
    planned = plan(APPS, THREE, "db1", redis=REDIS)
    assert planned["redis_instances"][0]["addresses"] == ["127.0.0.1", "10.0.0.3"]
    rule = {"name": "redis-jobs-2", "port": 16100, "protocol": "tcp", "sources": ["10.0.0.2/32"]}
    assert rule in planned["hardening_contributed_firewall_rules"]
    assert plan(APPS, THREE, "app1", redis=REDIS)["redis_instances"] == []
    login = {"role": "redis:shop", "host": "db1", "path": "/etc/shipshape/redis/shop.password"}
    assert plan(APPS, THREE, "app1", redis=REDIS)["database_logins"] == [login]
    # What no app asks for is for the host alone.
    (alone,) = plan({"desk": APPS["desk"]}, THREE, "db1", redis={"cache": {}})["redis_instances"]
    assert alone["addresses"] == ["127.0.0.1"]


def test_without_databases_redis_is_where_the_apps_are() -> None:
    topology = Topology(("web1",), ("app1", "app2"), (), {"web1": "10.0.0.1", "app1": "10.0.0.2", "app2": "10.0.0.4"})
    (first, _) = plan(APPS, topology, "app1", redis=REDIS)["redis_instances"]
    assert (first["addresses"], first["sources"]) == (["127.0.0.1", "10.0.0.2"], ["10.0.0.4/32"])
    assert plan(APPS, topology, "app2", redis=REDIS)["redis_instances"] == []


def test_the_packages_own_instance_stays_where_an_app_asks_for_the_package() -> None:
    assert plan(APPS, ONE, "web1")["redis_keep_packaged"] is True
    assert plan({"shop": APPS["shop"]}, ONE, "web1")["redis_keep_packaged"] is False
    assert plan(APPS, THREE, "db1")["redis_keep_packaged"] is False
