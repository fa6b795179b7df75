"""What the user writes of an app that is a Compose file: its keys, and what must fit together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from .checks import ISSUED, matches, relative_path, strong
from .container import CONTAINER_KEYS, check_behind_engine
from .problems import Path, Problem
from .schema import Items, Key, Table, Text

SERVICE = "the service of the file that answers requests, such as web"
FILE = "the Compose file in the code, such as compose.yml; several, and the later ones add to the earlier ones"
SERVER = "the registry's host, such as ghcr.io, without https:// (for type: compose)"
REGISTRY = Table(
    {
        "server": Key(Text(SERVER, (matches(r"[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)*(:\d{1,5})?", SERVER),)), required=True),
        "username": Key(
            Text("the user name at the registry", (matches(r"[^\s:]+", "a user name in one word, without a colon"),)),
            required=True,
        ),
        "password": Key(Text("its password or token, from the vault", (strong(8, ISSUED),), True), required=True),
    },
    "the login for a registry of its images, such as {server: registry.example.com, username: fetcher, password: …}",
)
#: What no other type has.
COMPOSE_ONLY = {
    "service": Key(
        Text(SERVICE, (matches(r"[A-Za-z0-9][A-Za-z0-9._-]*", "the name of a service, such as web"),)), required=True
    ),
    "compose_file": Key(Items(Text("a file in the code, such as compose.yml", (relative_path,)), FILE, 1, or_one=True)),
}
COMPOSE_KEYS = {
    **COMPOSE_ONLY,
    "registry": Key(REGISTRY),
    "container_port": CONTAINER_KEYS["container_port"],
}

ELSEWHERE = {
    "image": "no such key: the Compose file says which; for one image alone there is type: container",
    "command": "no such key: `command` of the service in the Compose file",
    "build": "no such key: `build` of the service in the Compose file",
    "packages": "no such key: what the app needs is in its images",
    "processes": "no such key: each process is a service of the Compose file",
    "volumes": "no such key: `volumes` of the Compose file; they outlive every release",
}


def check_compose(name: str, app: Mapping[str, Any], path: Path, variables: Mapping[str, Any]) -> Iterator[Problem]:
    """What a Compose file needs beside its shape."""
    yield from check_behind_engine(name, app, path, variables, "a Compose file", "`service`")
