"""Bad inventories as data: a sound base, a change, and what must be said of it."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from ansible_collections.shipshape.droplet.plugins.plugin_utils.problems import Unresolved
from ansible_collections.shipshape.droplet.plugins.plugin_utils.validate import Inventory
from cryptography.hazmat.primitives.asymmetric import ed25519
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

DIRECTORY = Path(__file__).parent / "bad_inventories"
#: A new one each time: the repository has no private key in it.
DEPLOY_KEY = (
    ed25519.Ed25519PrivateKey.generate()
    .private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    .decode("ascii")
)
BASES: dict[str, Any] = yaml.safe_load(
    (DIRECTORY / "base.yml").read_text().replace("A_DEPLOY_KEY", json.dumps(DEPLOY_KEY))
)
ROLES: dict[str, Any] = yaml.safe_load((DIRECTORY / "roles.yml").read_text())
TOPICS = ("apps", "databases", "processes", "containers", "compose", "globals", "hardening", "hosts")
OPERATIONS = {"set", "remove", "rename", "append", "unresolved", "set_number_key"}
EXPECTATIONS = {"name", "base", "path", "found", "wanted", "unseen", "also"}


def cases() -> Iterator[dict[str, Any]]:
    """All cases of all files; a misspelt key in one must not make it pass."""
    for topic in TOPICS:
        for case in yaml.safe_load((DIRECTORY / f"{topic}.yml").read_text()):
            assert set(case) <= OPERATIONS | EXPECTATIONS, f"{case['name']}: {set(case) - OPERATIONS - EXPECTATIONS}"
            assert set(case) & OPERATIONS and {"name", "path", "found", "wanted"} <= set(case), case["name"]
            yield {**case, "id": f"{topic}: {case['name']}"}


def steps(path: str) -> list[str | int]:
    """The steps of a path: `apps.a.domains[1]` is vars, apps, a, domains, 1."""
    parts: list[str | int] = []
    for name, index in re.findall(r"([^.\[\]]+)|\[(\d+)\]", path):
        parts.append(int(index) if index else name)
    return parts if parts[0] in {"hosts", "groups"} else ["vars", *parts]


def _parent(base: Any, path: str) -> tuple[Any, Any]:
    *above, last = steps(path)
    for step in above:
        base = base[step]
    return base, last


def mutate(base: dict[str, Any], case: dict[str, Any]) -> dict[str, Any]:
    """The base with the case's changes."""
    changed = copy.deepcopy(base)
    for path in case.get("remove", []):
        parent, last = _parent(changed, path)
        del parent[last]
    for path, name in case.get("rename", {}).items():
        parent, last = _parent(changed, path)
        parent[steps(f"{name}")[-1] if "." not in name else name] = parent.pop(last)
    for path, value in case.get("set", {}).items():
        parent, last = _parent(changed, path)
        parent[last] = value
    for path, value in case.get("append", {}).items():
        parent, last = _parent(changed, path)
        parent[last].append(value)
    for path, reason in case.get("unresolved", {}).items():
        parent, last = _parent(changed, path)
        parent[last] = Unresolved(reason)
    for path, key in case.get("set_number_key", {}).items():
        parent, last = _parent(changed, path)
        parent[last][key] = copy.deepcopy(base["vars"]["apps"]["worker"])
    return changed


def inventory(base: dict[str, Any]) -> Inventory:
    """The validator's input."""
    hosts = {host: {**base["vars"], **own} for host, own in base["hosts"].items()}
    return Inventory(hosts=hosts, groups=base["groups"], roles=ROLES)


def insightpulse() -> dict[str, Any]:
    """The apps that InsightPulse's own inventory has on its one domain."""
    path = DIRECTORY.parents[2] / "inventories" / "insightpulse" / "group_vars" / "all" / "main.yml"
    variables = yaml.safe_load(path.read_text(encoding="utf-8"))
    apps = {name: variables["apps"][name] for name in ("insightpulse", "superset")}
    for app in apps.values():
        app["cors"]["origins"] = variables["insightpulse_origins"]
    # On another droplet, which these tests of the proxies do without.
    del apps["superset"]["database"]
    return apps
