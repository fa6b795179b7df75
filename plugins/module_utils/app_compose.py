"""The services of a Compose file as a release of an app: a pure transformation of what Compose itself has resolved.

The service that answers requests becomes three: one for each colour, which systemd starts and stops by turns, and one
under its own name for what is run once in its place, such as a migration. The rest keeps its names, so that Compose
finds what runs already and leaves alone what is the same. Images go by their ids: a release stays what it was.
"""

from __future__ import annotations

import json
import os
import re
from dataclasses import dataclass, field
from typing import Any, Callable, Iterable, Mapping, Sequence

#: The names that Compose itself looks for.
NAMES = ("compose.yaml", "compose.yml", "docker-compose.yaml", "docker-compose.yml")
COLOURS = ("blue", "green")
LOOPBACK = "127.0.0.1"
#: Where the unit of a colour says that its container is published.
PUBLISHED = "SHIPSHAPE_PUBLISHED"
#: Our own notes in the file.
NOTES = "x-shipshape"
#: What two containers side by side cannot both have, or what systemd does in the engine's place.
NOT_BESIDE = ("ports", "container_name", "restart", "scale", "mac_address", "ipv4_address", "ipv6_address")
#: What is over when the images are there.
DONE = ("build", "pull_policy", "profiles")
#: Lists whose order says nothing; of several files, Compose 1.29 merges some in an order that it draws by lot, and a
#: service that is compared with itself must not differ.
UNORDERED = ("volumes", "ports", "expose", "secrets", "configs", "cap_add", "cap_drop", "devices", "security_opt")
#: A service may borrow these of another one, which then has to be there first, and to stay.
SHARED = ("network_mode", "pid", "ipc", "uts")

_PUBLISHED = re.compile(
    r"(?:(?P<address>\[[^\]]*\]|[^:]*):(?=[^:]*:))?(?:(?P<published>[^:]*):)?(?P<target>[0-9-]+(?:/\w+)?)"
)

Service = Mapping[str, Any]
#: From where a folder or file of the checkout is really mounted, for (service, path).
Relocate = Callable[[str, str], str]


class Refused(Exception):
    """What of the file cannot be, and what to do about it."""


@dataclass(frozen=True)
class Wanted:
    """What the inventory says of the app, as far as its file is concerned."""

    app: str
    release: str
    service: str
    port: int = 0
    memory: str = ""
    cpus: float = 0
    environment: Mapping[str, str] = field(default_factory=dict)
    #: Folders of the droplet with sockets, for a service whose environment names them.
    sockets: Sequence[str] = ()


def parse(text: str) -> dict[str, Any]:
    """What `config` prints: JSON, or of older versions YAML."""
    if text.lstrip().startswith("{"):
        found = json.loads(text)
    else:
        import yaml

        found = yaml.safe_load(text)
    if not isinstance(found, dict) or not isinstance(found.get("services"), dict):
        raise Refused("it has no `services`")
    return found


def escaped(value: str) -> str:
    """A value as it has to stand in a file that Compose reads."""
    return value.replace("$", "$$")


def as_mapping(value: Any) -> dict[str, Any]:
    """Environment or labels, which may be a list of NAME=VALUE."""
    if isinstance(value, Mapping):
        return dict(value)
    pairs = [str(entry).partition("=") for entry in value or []]
    return {name: text if equals else None for name, equals, text in pairs}


def _names(value: Any) -> list[str]:
    """What a list or a dictionary of services or networks names."""
    return [str(name) for name in value or []]


def active(services: Mapping[str, Service], profiles: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The services that Compose would start: those with a profile only when it is asked for."""
    asked = set(profiles)
    return {
        str(name): dict(service)
        for name, service in services.items()
        if not service.get("profiles") or "*" in asked or asked & set(_names(service["profiles"]))
    }


def tag(app: str, service: str, release: str) -> str:
    """The name of ours that keeps the image of a service as long as the release is kept."""
    return f"{app}-{service.lower()}:shipshape-{app}-{release}"


def to_build(resolved: Mapping[str, Any], app: str, release: str) -> dict[str, Any]:
    """The file by which Compose builds what is built, under names of ours."""
    services = {
        name: {"build": service["build"], "image": tag(app, name, release)}
        for name, service in resolved["services"].items()
        if service.get("build")
    }
    kept = {key: resolved[key] for key in ("version", "secrets") if resolved.get(key)}
    return {**kept, "services": services}


def to_pull(resolved: Mapping[str, Any], wanted: Wanted) -> dict[str, tuple[str, bool]]:
    """The images of services that are not built, and whether a release looks for a newer one of that name.

    That of the web service is part of the release; that of a store, say, stays as long as its name does.
    """
    services = resolved["services"]
    of_the_web = services[wanted.service].get("image")
    return {
        name: (str(service["image"]), service["image"] == of_the_web or service.get("pull_policy") == "always")
        for name, service in services.items()
        if not service.get("build")
    }


def check(resolved: Mapping[str, Any], wanted: Wanted) -> None:
    """Refuse what could not be deployed without a gap."""
    services, web = resolved["services"], wanted.service
    if web not in services:
        raise Refused(f"it has no service {web}; it has {', '.join(sorted(services)) or 'none'}; check `service`")
    for colour in COLOURS:
        if f"{web}-{colour}" in services:
            raise Refused(f"its service {web}-{colour} has a name that the releases of {web} need; rename it")
    mode = services[web].get("network_mode")
    if mode:
        raise Refused(
            f"its service {web} has `network_mode: {mode}`, in which two releases cannot run side by side; take that"
            " line out"
        )
    for name, service in services.items():
        if not service.get("build") and not service.get("image"):
            raise Refused(f"its service {name} has neither `image` nor `build`")
        borrowed = next((key for key in SHARED if service.get(key) == f"service:{web}"), "")
        if name != web and (
            borrowed or web in [entry.partition(":")[0] for entry in _names(service.get("volumes_from"))]
        ):
            what = borrowed or "volumes_from"
            raise Refused(
                f"its service {name} has `{what}` of {web}, whose container is another one with each release;"
                f" let it reach {web} over the network, or share a named volume"
            )


def runnable(
    resolved: Mapping[str, Any], wanted: Wanted, images: Mapping[str, str], relocate: Relocate
) -> dict[str, Any]:
    """The file that a release is run from, by any version of Compose."""
    check(resolved, wanted)
    services, web = resolved["services"], wanted.service
    ended = _awaited(services)
    found: dict[str, Any] = {}
    aliases: list[str] = [web]
    for name, service in services.items():
        if name == web:
            continue
        row = _common(name, service, wanted, images, relocate)
        aliases += _unlink(row, web)
        row["ports"] = [bound(port) for port in row.get("ports") or []]
        row["labels"] = {**as_mapping(row.get("labels")), "shipshape.app": wanted.app}
        if not row.get("restart") and not (row.get("deploy") or {}).get("restart_policy") and name not in ended:
            # After a reboot, too; one that is meant to end says so itself.
            row["restart"] = "unless-stopped"
        found[name] = _ordered(row)
    rest = sorted(found)
    base = _ordered(_web(_common(web, services[web], wanted, images, relocate), wanted))
    for colour in COLOURS:
        found[f"{web}-{colour}"] = _coloured(base, wanted, colour, list(dict.fromkeys(aliases)))
    found[web] = base
    kept = {key: resolved[key] for key in ("version", "networks", "volumes") if resolved.get(key)}
    for key in ("secrets", "configs"):
        if resolved.get(key):
            kept[key] = {name: _kept(key[:-1], name, entry, relocate) for name, entry in resolved[key].items()}
    may_end = [name for name in rest if name in ended or found[name].get("restart") == "no"]
    notes = {"service": web, "rest": rest, "may_end": may_end}
    return {**kept, "services": found, NOTES: notes}


def _awaited(services: Mapping[str, Service]) -> set[str]:
    """The services that others wait for to end."""
    return {
        name
        for service in services.values()
        for name, how in (service["depends_on"] if isinstance(service.get("depends_on"), Mapping) else {}).items()
        if isinstance(how, Mapping) and how.get("condition") == "service_completed_successfully"
    }


def _common(
    name: str, service: Service, wanted: Wanted, images: Mapping[str, str], relocate: Relocate
) -> dict[str, Any]:
    row = {key: value for key, value in service.items() if key not in DONE and value is not None}
    row["image"] = images[name]
    row["volumes"] = [mounted(volume, lambda path: relocate(name, path)) for volume in row.get("volumes") or []]
    environment = as_mapping(row.get("environment"))
    if name == wanted.service:
        environment.update((key, escaped(value)) for key, value in wanted.environment.items())
    row["environment"] = environment
    for folder in wanted.sockets:
        if any(folder in str(value) for value in environment.values()):
            row["volumes"].append(f"{folder}:{folder}")
    depends = row.pop("depends_on", None) or {}
    left = (
        {key: how for key, how in depends.items() if key != wanted.service}
        if isinstance(depends, Mapping)
        else [key for key in depends if key != wanted.service]
    )
    if left and name != wanted.service:
        row["depends_on"] = left
    return row


def _ordered(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: sorted(value, key=lambda entry: json.dumps(entry, sort_keys=True)) if key in UNORDERED and value else value
        for key, value in row.items()
    }


def _unlink(row: dict[str, Any], web: str) -> list[str]:
    """Take out the links to the web service; under the names they gave it, it is found on the network."""
    links = [str(link) for link in row.pop("links", None) or []]
    left = [link for link in links if link.partition(":")[0] != web]
    if left:
        row["links"] = left
    return [link.partition(":")[2] or web for link in links if link not in left]


def _web(row: dict[str, Any], wanted: Wanted) -> dict[str, Any]:
    """The web service for what is run once in its place, and as the ground of its colours."""
    row = {key: value for key, value in row.items() if key not in (*NOT_BESIDE, "links")}
    row["labels"] = {
        **as_mapping(row.get("labels")),
        "shipshape.app": wanted.app,
        "shipshape.release": wanted.release,
    }
    networks = row.get("networks") or {"default": None}
    if not isinstance(networks, Mapping):
        networks = {name: None for name in networks}
    # One address cannot be two containers'.
    row["networks"] = {
        name: {key: value for key, value in (how or {}).items() if key not in NOT_BESIDE} or None
        for name, how in networks.items()
    }
    deploy = {key: value for key, value in (row.pop("deploy", None) or {}).items() if key == "resources"}
    limits = dict((deploy.get("resources") or {}).get("limits") or {})
    if wanted.memory:
        row["mem_limit"] = wanted.memory.lower()
        limits.pop("memory", None)
    if wanted.cpus:
        row["cpus"] = wanted.cpus
        limits.pop("cpus", None)
    if deploy:
        row["deploy"] = {"resources": {**deploy["resources"], "limits": limits}}
    return row


def _coloured(base: Service, wanted: Wanted, colour: str, aliases: Sequence[str]) -> dict[str, Any]:
    """The web service as one colour runs it."""
    row = {
        **base,
        "container_name": f"{wanted.app}-{colour}",
        "restart": "no",
        "labels": {**base["labels"], "shipshape.colour": colour},
        "networks": {
            name: {**(how or {}), "aliases": list(dict.fromkeys([*((how or {}).get("aliases") or []), *aliases]))}
            for name, how in base["networks"].items()
        },
    }
    if wanted.port:
        # What the unit says holds; without it the file has to be sound all the same.
        row["ports"] = [f"${{{PUBLISHED}:-{LOOPBACK}:0}}:{wanted.port}"]
    return row


def _kept(kind: str, name: str, entry: Any, relocate: Relocate) -> Any:
    """A secret or a configuration, whose file is of the checkout."""
    if not isinstance(entry, Mapping) or not entry.get("file"):
        return entry
    path = relocate("", str(entry["file"]))
    if not os.path.exists(path):
        raise Refused(f"the file of its {kind} {name} is not in the code, and there is no {path}; put it there")
    return {**entry, "file": path}


def bound(port: Any) -> str:
    """A published port in one text; without an address it is the loopback interface's alone."""
    if isinstance(port, Mapping):
        address, published = str(port.get("host_ip") or LOOPBACK), str(port.get("published") or "")
        address = f"[{address}]" if ":" in address and not address.startswith("[") else address
        published = "" if published == "0" else published
        return f"{address}:{published}:{port['target']}/{port.get('protocol') or 'tcp'}"
    parts = _PUBLISHED.fullmatch(str(port))
    if parts is None:
        raise Refused(f"it publishes {port!r}, which says no port")
    return f"{parts['address'] or LOOPBACK}:{parts['published'] or ''}:{parts['target']}"


def mounted(volume: Any, relocate: Callable[[str], str]) -> Any:
    """A volume; what is mounted from the droplet's own files may have moved."""
    if isinstance(volume, Mapping):
        if volume.get("type") == "bind" and volume.get("source"):
            return {**volume, "source": relocate(str(volume["source"]))}
        return dict(volume)
    source, colon, rest = str(volume).partition(":")
    return f"{relocate(source)}:{rest}" if colon and source.startswith("/") else str(volume)


def values_of(file: Mapping[str, Any]) -> dict[str, str]:
    """All that the services find in their environments, for what must not be shown."""
    return {
        f"{service}.{name}": str(value).replace("$$", "$")
        for service, row in file.get("services", {}).items()
        for name, value in as_mapping(row.get("environment")).items()
        if value is not None
    }
