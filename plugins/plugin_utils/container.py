"""What the user writes of an app that is an image: its keys, and what must fit together."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ansible_collections.shipshape.droplet.plugins.module_utils import app_registry

from .checks import ISSUED, example_domain, matches, placeholder, shell, strong
from .problems import Fault, Path, Problem, quoted
from .schema import Items, Key, Number, Pairs, Table, Text

IMAGE = "an image by tag or digest, such as registry.example.com/ocr:1.4"
#: Rights that make of a container's root the droplet's own.
FULL_ROOT = {"ALL", "SYS_ADMIN", "SYS_MODULE", "SYS_PTRACE", "SYS_RAWIO", "DAC_READ_SEARCH", "BPF", "PERFMON"}


def image(value: str) -> Fault | None:
    """The reference of an image, with a tag or a digest."""
    if placeholder(value):
        return Fault("a placeholder", IMAGE)
    if "://" in value:
        return Fault(f"{quoted(value)}, a URL", f"the image alone: {quoted(value.partition('://')[2])}")
    tagged, at, digest = value.partition("@")
    name, tag = app_registry.split(tagged)
    try:
        host = app_registry.image_of(name).host
    except ValueError:
        return Fault(quoted(value), f"{IMAGE}: lower-case letters, digits, dots and hyphens between slashes")
    if not tag and not at:
        return Fault(f"{quoted(value)}, without a tag", f"one that stays what it is, such as {quoted(value + ':1.4')}")
    if tag and not app_registry.TAG.fullmatch(tag):
        return Fault(f"the tag {quoted(tag)}", "letters, digits, dots, underscores and hyphens")
    if at and not app_registry.DIGEST.fullmatch(digest):
        return Fault(f"the digest {quoted(digest)}", "sha256: and 64 digits from 0 to f, as `docker pull` prints it")
    if example_domain(host.partition(":")[0]):
        return Fault(f"{quoted(value)}, at a domain reserved for examples", "the image's own registry")
    return None


def inner_path(value: str) -> Fault | None:
    """A path in a container."""
    if re.fullmatch(r"(/[A-Za-z0-9._-]+)+", value) and not {".", ".."} & set(value.split("/")):
        return None
    return Fault(quoted(value), "a path in the container, such as /app/uploads")


def capability(value: str) -> Fault | None:
    """A right of root, under the kernel's name without its prefix."""
    if not re.fullmatch(r"[A-Z][A-Z_]+", value) or value.startswith("CAP_"):
        return Fault(quoted(value), f"the kernel's name without CAP_: {value.upper().removeprefix('CAP_')}")
    if value in FULL_ROOT:
        return Fault(f"{value}, with which a container is the droplet's root", "the few rights that the app needs")
    return None


REGISTRY = Table(
    {
        "username": Key(
            Text("the user name at the registry", (matches(r"[^\s:]+", "a user name in one word, without a colon"),)),
            required=True,
        ),
        "password": Key(Text("its password or token, from the vault", (strong(8, ISSUED),), True), required=True),
    },
    "the login for the image's registry, such as {username: fetcher, password: …}",
)

CONTAINER_KEYS = {
    "image": Key(Text(IMAGE, (image,)), required=True),
    "registry": Key(REGISTRY),
    "container_port": Key(Number("the port on which the app listens inside, which it finds in $PORT", 1, 65535)),
    "arguments": Key(Text("what the image is started with in place of its own command", (shell,))),
    "volumes": Key(
        Pairs(
            lambda _path: Text(
                "the name of a folder",
                (matches("[a-z0-9][a-z0-9-]*", "a name of lower-case letters, digits and hyphens, such as uploads"),),
            ),
            "what outlives a release: paths in the container, and a name for each, such as {/app/uploads: uploads}",
            inner_path,
        )
    ),
    "capabilities": Key(
        Items(
            Text("a right of root, such as CHOWN", (capability,)),
            "rights of root that the app keeps, such as [CHOWN, SETUID, SETGID]",
        )
    ),
}

ELSEWHERE = {
    "source": "no such key: what runs is in the image; `image` says which",
    "packages": "no such key: what the app needs is in its image",
    "command": "`arguments`, for what the image is started with; without them it runs its own command",
    "shared": "`volumes`, such as {/app/uploads: uploads}: what outlives a release of an image",
}


def check_behind_engine(
    name: str, app: Mapping[str, Any], path: Path, variables: Mapping[str, Any], what: str, listener: str
) -> Iterator[Problem]:
    """What everything needs that runs in containers; `listener` is who listens inside."""
    if variables.get("docker") is False:
        wanted = f"no such key, or true: apps.{name} is {what}"
        yield Problem(("docker",), f"false, beside an app that is {what}", wanted)
    if app.get("domains") and "health" not in app:
        wanted = "the path that answers when the app is well, such as /health; each deploy waits for it"
        yield Problem((*path, "health"), "nothing", wanted)
    needing = next((key for key in ("domains", "health", "port") if app.get(key)), "")
    if needing and "container_port" not in app:
        wanted = f"the port on which {listener} listens inside, such as 8000: `{needing}` leads there"
        yield Problem((*path, "container_port"), "nothing", wanted)


def check_container(name: str, app: Mapping[str, Any], path: Path, variables: Mapping[str, Any]) -> Iterator[Problem]:
    """What a container needs beside its shape."""
    yield from check_behind_engine(name, app, path, variables, "a container", "the app")
    environment = app.get("env")
    port = environment.get("PORT") if isinstance(environment, Mapping) else None
    if port is not None and str(port) != str(app.get("container_port")):
        wanted = "`container_port` beside `env`, and no PORT in it: what leads to the app must know the port, too"
        yield Problem((*path, "env", "PORT"), "a port of its own", wanted)
    volumes = app.get("volumes")
    seen: dict[str, str] = {}
    for target, folder in (volumes if isinstance(volumes, Mapping) else {}).items():
        if isinstance(folder, str) and folder in seen:
            wanted = "a name of its own for each path"
            yield Problem((*path, "volumes", str(target)), f"{folder}, which {seen[folder]} has, too", wanted)
        elif isinstance(folder, str):
            seen[folder] = str(target)
