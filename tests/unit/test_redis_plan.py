"""Who may log in to Redis, whether it fits into memory, and what the plan makes of `redis`."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import redis_plan as planning
from ansible_collections.shipshape.droplet.plugins.plugin_utils.names import redis_port
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_common import PlanError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

CACHE = {"name": "cache", "port": 16001, "memory": "128mb", "policy": "allkeys-lru", "persistence": "none", "users": []}
PASSWORDS = {"shipshape": "a", "shop": "b"}
ONE = Topology(("web1",), ("web1",), ("web1",))
THREE = Topology(("web1",), ("app1",), ("db1",), {"web1": "10.0.0.1", "app1": "10.0.0.2", "db1": "10.0.0.3"})
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


def test_nobody_gets_in_without_a_password_and_none_of_them_is_readable() -> None:
    text = planning.acl(["shop", "shop"], PASSWORDS, (7, 0))
    default, admin, shop = text.splitlines()
    assert default == "user default reset" and admin.startswith("user shipshape on #") and admin.endswith("&* +@all")
    assert shop.startswith(f"user shop on #{hashlib.sha256(b'b').hexdigest()} &* ~* +@all -@admin -@dangerous")
    assert "&*" not in planning.acl(["shop"], PASSWORDS, (6, 0))


def test_the_version_is_read_from_what_the_program_says() -> None:
    assert planning.version_of("Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0 bits=64") == (7, 0)
    assert planning.version_of("") == (7, 0)


def test_all_instances_must_fit_into_a_part_of_the_memory() -> None:
    two = [CACHE, {**CACHE, "name": "queue", "memory": "1gb"}]
    assert planning.shortage(two, 2304, 50) == ""
    assert planning.shortage(two, 2303, 50).startswith(
        "Redis is to have 1152 MB (cache 128mb, queue 1gb), and this host has 2303 MB of memory, of which 50 % (1151 MB"
    )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"name": "Cache"}, r"redis_instances\[1\]: name 'Cache'"),
        ({"name": "cache"}, "'cache' is there twice"),
        ({"memory": "lots"}, "memory 'lots'"),
        ({"port": 16001}, "port 16001 is that of cache, too"),
        ({"users": ["shipshape"]}, "Shipshape's own"),
    ],
)
def test_what_stands_against_an_instance_is_said(changes: dict[str, Any], words: str) -> None:
    (found,) = planning.problems([CACHE, {**CACHE, "name": "other", "port": 16002, **changes}])
    assert re.search(words, found)


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
