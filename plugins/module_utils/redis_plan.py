"""Redis: who may log in to an instance, and whether all fit into memory. Pure: asks nothing, changes nothing."""

from __future__ import annotations

import hashlib
import re
from typing import Any, Dict, List, Mapping, Sequence, Tuple

#: Who administers an instance on its host: this program.
ADMIN = "shipshape"
#: What an app may do: all with its keys, nothing with the server. Caches are emptied and looked through by these four.
RIGHTS = "~* +@all -@admin -@dangerous +flushdb +info +keys +sort"
#: Before this version there were no rights for channels; since 7.0 a user has none unless it is given them.
CHANNELS = (6, 2)


def version_of(text: str) -> Tuple[int, int]:
    """The version that `redis-server --version` tells."""
    found = re.search(r"v=(\d+)\.(\d+)", text)
    return (int(found.group(1)), int(found.group(2))) if found else (7, 0)


def megabytes(size: str) -> int:
    number, unit = re.match(r"(\d+)(mb|gb)$", size).groups()  # type: ignore[union-attr]
    return int(number) * (1024 if unit == "gb" else 1)


def shortage(instances: Sequence[Mapping[str, Any]], memory_mb: int, percent: int) -> str:
    """Why the instances do not fit into the host's memory; nothing when they do."""
    wanted, given = sum(megabytes(each["memory"]) for each in instances), memory_mb * percent // 100
    if wanted <= given:
        return ""
    each = ", ".join("{name} {memory}".format(**instance) for instance in instances)
    return (
        f"Redis is to have {wanted} MB ({each}), and this host has {memory_mb} MB of memory, of which {percent} % "
        f"({given} MB) may go there. Make redis.NAME.memory smaller, or take a larger droplet; redis_memory_percent "
        "moves the limit"
    )


def _hash(password: str) -> str:
    return "#" + hashlib.sha256(password.encode("utf-8")).hexdigest()


def acl(users: Sequence[str], passwords: Mapping[str, str], version: Tuple[int, int]) -> str:
    """The text of an instance's list of users: by hash, so that no password stands in it."""
    channels = "&* " if version >= CHANNELS else ""
    lines = ["user default reset", f"user {ADMIN} on {_hash(passwords[ADMIN])} ~* {channels}+@all"]
    lines += [f"user {name} on {_hash(passwords[name])} {channels}{RIGHTS}" for name in sorted(set(users))]
    return "\n".join(lines) + "\n"


def wanted_settings(instance: Mapping[str, Any]) -> Dict[str, str]:
    """What an instance must say of itself."""
    return {
        "maxmemory": str(megabytes(instance["memory"]) * 1024 * 1024),
        "maxmemory-policy": str(instance["policy"]),
        "appendonly": "yes" if instance["persistence"] == "aof" else "no",
    }


def problems(instances: Sequence[Mapping[str, Any]]) -> List[str]:
    """What stands against the instances, each with where it was said."""
    found: List[str] = []
    ports: Dict[int, str] = {}
    names = set()
    for number, instance in enumerate(instances):
        where, name, port = f"redis_instances[{number}]", instance["name"], instance["port"]
        if not re.match(r"[a-z][a-z0-9-]{0,29}$", name):
            found.append(f"{where}: name '{name}'; lower-case letters, digits and hyphens make a name, such as cache")
        if name in names:
            found.append(f"{where}: '{name}' is there twice")
        if not re.match(r"[1-9]\d*(mb|gb)$", instance["memory"]):
            found.append(f"{where}: memory '{instance['memory']}'; write it as 128mb or 2gb")
        if port in ports:
            found.append(f"{where}: port {port} is that of {ports[port]}, too")
        if ADMIN in instance["users"] or "default" in instance["users"]:
            found.append(f"{where}: users named {ADMIN} and default are Redis' and Shipshape's own")
        names.add(name)
        ports.setdefault(port, name)
    return found
