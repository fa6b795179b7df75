"""Who may log in to Redis, and whether it fits into memory."""

from __future__ import annotations

import hashlib
import re
from typing import Any

import pytest
from ansible_collections.shipshape.droplet.plugins.module_utils import redis_plan as planning

CACHE = {"name": "cache", "port": 16001, "memory": "128mb", "policy": "allkeys-lru", "persistence": "none", "users": []}
PASSWORDS = {"shipshape": "a", "shop": "b"}


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
