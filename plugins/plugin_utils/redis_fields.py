"""What the user writes of Redis: instances by their names, each for one use."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .checks import matches
from .names import redis_port
from .problems import Problem, listing
from .schema import Key, Number, Pairs, Table, Text

#: By what an instance is for: what goes when its memory is full, and how it outlives a restart.
USES: dict[str, dict[str, str]] = {
    "cache": {"policy": "allkeys-lru", "persistence": "none"},
    "sessions": {"policy": "volatile-ttl", "persistence": "aof"},
    "queue": {"policy": "noeviction", "persistence": "aof"},
}
POLICIES = ("noeviction", "allkeys-lru", "allkeys-lfu", "allkeys-random", "volatile-lru", "volatile-lfu",
            "volatile-random", "volatile-ttl")  # fmt: skip
PERSISTENCES = ("none", "rdb", "aof")
MEMORY = "64mb"

INSTANCE_NAME = matches(
    "(?=.{1,30}$)[a-z][a-z0-9]*(-[a-z0-9]+)*", "a name in lower-case letters, digits and hyphens, such as cache"
)
SIZE = 'how much it may hold, such as "128mb" or "2gb"'


def _one_of(names: tuple[str, ...], words: str) -> Key:
    return Key(Text(words, (matches("|".join(names), f"one of: {listing(names)}"),)))


INSTANCE = Table(
    {
        "use": _one_of(tuple(USES), "cache, sessions or queue; left out where the name is one of these"),
        "memory": Key(Text(SIZE, (matches("[1-9][0-9]*(mb|gb)", SIZE),))),
        "policy": _one_of(POLICIES, "what goes when its memory is full, in Redis' words, such as allkeys-lru"),
        "persistence": _one_of(PERSISTENCES, "how it outlives a restart: none, rdb (now and then), aof (each second)"),
        "port": Key(Number("a port from 1024 to 32766, or no key: then one follows from the name", 1024, 32766)),
    },
    "an instance, such as {use: cache, memory: 128mb}",
)
REDIS = Pairs(lambda _name: INSTANCE, "instances of Redis by name, such as {cache: {memory: 128mb}}", INSTANCE_NAME)


def use_of(name: str, instance: Mapping[str, Any]) -> str:
    """What an instance is for, or nothing where neither it nor its name says so."""
    use = str(instance.get("use") or name)
    return use if use in USES else ""


def port_of(name: str, instance: Mapping[str, Any]) -> int:
    port = instance.get("port")
    return port if isinstance(port, int) and not isinstance(port, bool) else redis_port(name)


def instances_of(variables: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The instances as far as they are dictionaries."""
    given = variables.get("redis")
    given = given if isinstance(given, Mapping) else {}
    return {str(name): instance for name, instance in given.items() if isinstance(instance, Mapping)}


def check_redis(variables: Mapping[str, Any], apps: Mapping[str, Mapping[str, Any]]) -> Iterator[Problem]:
    """Instances whose use is not known, and apps that name one that is not there."""
    instances = instances_of(variables)
    for name, instance in instances.items():
        if "use" not in instance and not use_of(name, instance):
            wanted = "what it is for: cache (old entries make room), sessions, or queue (nothing is ever dropped)"
            yield Problem(("redis", name, "use"), "nothing", wanted)
    for name, app in apps.items():
        asked = app.get("redis")
        asked = [asked] if isinstance(asked, str) else asked if isinstance(asked, list) else []
        for index, wish in enumerate(asked):
            if isinstance(wish, str) and wish not in instances:
                known = f"one of {listing(instances)}" if instances else f"`redis: {{{wish}: {{}}}}` beside `apps`"
                path = ("apps", name, "redis", index) if isinstance(app.get("redis"), list) else ("apps", name, "redis")
                yield Problem(path, f"{wish}, which `redis` does not have", known)
