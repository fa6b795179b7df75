"""What the proxy is told of each site, and the certificates that these take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..module_utils.app_types import PROCESS_TYPES
from .names import is_address, socket_address
from .plan_common import STATE_DIRECTORY, Apps, Row, health_of, ports_of, text, texts
from .site import PERIODS, mounts, whole_domains
from .topology import Topology

TLS_DIRECTORY = "/etc/shipshape/tls"
#: Where a proxy looks which of an app's two releases answers: plugins/module_utils/app_proxy.py keeps it.
LIVE_DIRECTORY = f"{STATE_DIRECTORY}/live"


def sites(apps: Apps, topology: Topology, host: str) -> list[Row]:
    """The sites that this host serves: those of the apps, and those of domains that are no app's as a whole."""
    if host not in topology.proxy:
        return []
    own = [_site(name, app, topology, host) for name, app in apps.items() if app.get("domains")]
    return own + _nobodys(own)


def certificates(sites: Sequence[Row]) -> list[Row]:
    """The certificates that an authority has to issue for these sites, each with its domains."""
    return [
        {"name": site["name"], "domains": whole_domains(site) + site["redirect_domains"]}
        for site in sites
        if site.get("certificate") and not site["self_signed"]
    ]


def _site(name: str, app: Mapping[str, Any], topology: Topology, host: str) -> Row:
    domains = texts(app.get("domains"))
    site: Row = {"name": name, "domains": domains, "redirect_domains": texts(app.get("redirect_domains"))}
    # What has but a path on a domain is shown by the certificate of that.
    if whole_domains(site):
        site |= _certificate(name, is_address(domains[0]))
    site["locations"] = [_location(path, said) for path, said in (app.get("locations") or {}).items()]
    site.update(_edge(app))
    site.update((key, app[key]) for key in ("strip", "priority") if key in app)
    if given := app.get("request_headers"):
        site["request_headers"] = {key: str(value) for key, value in given.items()}
    if cors := app.get("cors"):
        site["cors"] = {key: texts(cors.get(key)) for key in ("origins", "methods", "headers")}
    if app["type"] == "route":
        site["route"] = {
            "upstream": str(app["url"]),
            "timeout": int(app.get("timeout") or 60),
            "max_body_size": str(app.get("max_body_size") or "10m"),
        }
        return site
    if app["type"] == "static":
        site["static"] = {"root": f"/srv/{name}/current/public", "spa": bool(app.get("spa", False))}
        if size := app.get("max_body_size"):
            site["static"]["max_body_size"] = str(size)
        return site
    upstreams, green = (
        [socket_address(_upstream(topology, host, server), port) for server in topology.app]
        for port in ports_of(name, app)
    )
    site["proxy"] = {
        "upstreams": upstreams,
        "green": {"upstreams": green, "flag": f"{LIVE_DIRECTORY}/{name}.green"},
        "websockets": texts(app.get("websocket")),
        "timeout": int(app.get("timeout") or 60),
        "max_body_size": str(app.get("max_body_size") or "10m"),
    }
    return site


def _certificate(name: str, self_signed: bool) -> Row:
    return {
        "certificate": f"{TLS_DIRECTORY}/{name}/fullchain.pem",
        "certificate_key": f"{TLS_DIRECTORY}/{name}/privkey.pem",
        "self_signed": self_signed,
        # Browsers ignore it over a certificate they do not trust, and for an address.
        "hsts": not self_signed,
    }


def _edge(app: Mapping[str, Any]) -> Row:
    """Who may come to a site, how often, and what all answers say."""
    row: Row = {}
    if limit := app.get("rate_limit"):
        row["rate_limit"] = _rates(limit)
    if given := app.get("rate_limits"):
        row["rate_limits"] = {path: _rates(limit) for path, limit in given.items()}
    if headers := app.get("headers"):
        row["headers"] = {name: text(value) for name, value in headers.items()}
    if auth := app.get("basic_auth"):
        users = {name: str(password) for name, password in auth["users"].items()}
        row["basic_auth"] = {"users": users, "paths": texts(auth.get("paths"))}
    if allowed := texts(app.get("allow")):
        row["allow"] = allowed
    if closed := app.get("maintenance"):
        row["maintenance"] = {"message": str(closed["message"]) if isinstance(closed, Mapping) else ""}
    if app.get("type") in PROCESS_TYPES and (health := health_of(app.get("health"))["health"]):
        row["health"] = health
    return row


def _rates(limit: Mapping[str, Any]) -> Row:
    """A limit with its burst. A page with its assets arrives at once: without room for that, the limit would hit honest
    visitors first. But where few requests are allowed, no more than those come at once."""
    rates = {key: int(limit[key]) for key in PERIODS if limit.get(key)}
    least = min(rates.values())
    burst = limit.get("burst")
    return {**rates, "burst": int(burst) if burst is not None else min(least - 1, max(least // 10, 20))}


def _location(path: str, said: str | Mapping[str, Any]) -> Row:
    """A path that another host answers: its URL alone, or with how it is asked."""
    if not isinstance(said, Mapping):
        return {"path": path, "upstream": said}
    row: Row = {"path": path, "upstream": str(said["url"])}
    row.update((key, said[key]) for key in ("strip", "priority", "request_headers") if key in said)
    return row


def _upstream(topology: Topology, proxy: str, server: str) -> str:
    """Where this proxy finds the app on that server: exactly where the app listens."""
    return topology.app_address(server, public=True) if proxy == server else topology.path(proxy, server)


def _nobodys(sites: Sequence[Row]) -> list[Row]:
    """The domains on which there are only paths. Each has a site of its own name for its certificate."""
    owned = {name.lower() for site in sites for name in whole_domains(site)}
    names = dict.fromkeys(mount.domain.lower() for site in sites for mount in mounts(site))
    return [
        {"name": name, "domains": [name], "redirect_domains": [], **_certificate(name, False), "empty": True}
        for name in names
        if name not in owned
    ]
