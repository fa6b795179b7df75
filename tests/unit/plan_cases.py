"""What the tests of the plan have in common: apps, hosts, passwords, and single rows of a plan of these."""

from __future__ import annotations

from typing import Any

from ansible_collections.shipshape.droplet.plugins.plugin_utils.names import app_port
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan import plan
from ansible_collections.shipshape.droplet.plugins.plugin_utils.plan_apps import plan_apps
from ansible_collections.shipshape.droplet.plugins.plugin_utils.topology import Topology

GIT = {"git": "https://git.malar.in/malar.git"}
API: dict[str, Any] = {
    "type": "python",
    "source": {**GIT, "version": "v1", "path": "backend/"},
    "command": "uvicorn app.main:app --host $HOST --port $PORT",
    "migrate": "alembic upgrade head",
    "domains": ["api.malar.in"],
    "health": "/health",
    "websocket": "/ws",
    "database": {"extensions": ["uuid-ossp"]},
    "packages": ["redis-server"],
    "env": {"DEBUG": False, "POOL": 20, "SECRET_KEY": "x"},
}
WEB: dict[str, Any] = {
    "type": "static",
    "source": {**GIT, "path": "frontend/dist"},
    "domains": ["malar.in"],
    "redirect_domains": ["www.malar.in"],
    "locations": {"/api": "https://api.malar.in"},
    "spa": True,
}
APPS = {"malar-api": API, "malar-web": WEB}
PORT = app_port("malar-api")
ONE = Topology(("web1",), ("web1",), ("web1",))
THREE = Topology(
    ("web1",), ("app1",), ("db1",), {"web1": "10.0.0.1", "app1": "10.0.0.2", "db1": "10.0.0.3"}
)  # fmt: skip
GROWN = Topology(
    ("web1", "web2"),
    ("app1", "web2"),
    ("db1",),
    {"web1": "10.0.0.1", "web2": "10.0.0.9", "app1": "10.0.0.2", "db1": "fd00::3"},
)
PASSWORDS = {"malar_api": "p@ss/w:rd"}
OCR: dict[str, Any] = {
    "type": "container",
    "image": "registry.malar.in/ocr:1.4",
    "registry": {"username": "fetcher", "password": "s3cret-of-mine"},
    "container_port": 8000,
    "arguments": "serve --workers 2",
    "migrate": "alembic upgrade head",
    "domains": ["ocr.malar.in"],
    "health": "/health",
    "database": {},
    "volumes": {"/data": "uploads"},
    "memory": "512M",
    "env": {"MODEL": "large"},
}
COMPOSED: dict[str, Any] = {
    "type": "compose",
    "source": {"git": "https://git.in/board.git", "version": "v2"},
    "compose_file": "compose.yml",
    "service": "web",
    "container_port": 8000,
    "registry": {"server": "ghcr.io", "username": "u", "password": "p"},
    "domains": ["board.in"],
    "health": "/health",
    "database": {"password": "secret"},
    "env": {"DEBUG": False},
}


def site(apps: dict[str, Any], topology: Topology, host: str, name: str) -> dict[str, Any]:
    """What the proxy on a host is told of the site of that name."""
    return next(row for row in plan(apps, topology, host)["nginx_sites"] if row["name"] == name)


def app(topology: Topology, host: str, name: str = "malar-api", **changes: Any) -> dict[str, Any]:
    """What a host is to deploy of one of APPS, whose keys `changes` replace."""
    apps = {**APPS, name: {**APPS[name], **changes}}
    return next(row for row in plan_apps(apps, topology, host, PASSWORDS) if row["name"] == name)


def container(topology: Topology, host: str, **changes: Any) -> dict[str, Any]:
    """What a host is to deploy of OCR, whose keys `changes` replace."""
    return dict(plan_apps({"ocr": {**OCR, **changes}}, topology, host, {"ocr": "p@ss/w:rd"})[0])
