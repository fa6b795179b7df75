"""Filters that turn the sites of the nginx role into files, certificates and settings: pure functions."""

from __future__ import annotations

import hashlib
import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError
from ansible_collections.shipshape.droplet.plugins.plugin_utils.site import (
    CORS_HEADERS,
    CORS_METHODS,
    PRIORITY,
    RETRY_AFTER,
    UNAVAILABLE,
    Limit,
    Mount,
    auth_paths,
    is_of_the_proxy,
    kind_of,
    limits,
    maintenance_text,
    mounted,
    mounts,
    owners,
    page,
    plain_path,
    users,
    whole_domains,
)

#: Our directory beside what the distribution ships.
HOME = "/etc/nginx/shipshape"
TLS = "/etc/shipshape/tls"
SERVICE = "nginx.service"

Site = Mapping[str, Any]


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _host(name: Any) -> str:
    """A name as it stands in a request and in an address: an IPv6 address goes in brackets."""
    text = str(name).strip("[]")
    return f"[{text}]" if ":" in text else text


def _version(text: str) -> tuple[int, ...]:
    numbers = re.findall(r"\d+", str(text))
    if not numbers:
        raise AnsibleFilterError(f"nginx_version is '{text}'; it must be a version such as 1.22")
    return tuple(int(number) for number in numbers)


def nginx_features(version: str) -> dict[str, bool]:
    """What the given nginx understands, of all that the templates would write differently."""
    found = _version(version)
    # A release is named by two numbers (1.22) and then has every feature of its last patch.
    patched = found if len(found) > 2 else (*found[:2], 999)
    return {
        "http2_directive": patched >= (1, 25, 1),
        "reject_handshake": patched >= (1, 19, 4),
        "http3": patched >= (1, 25),
    }


def nginx_quote(value: Any) -> str:
    """A double-quoted nginx parameter that means exactly the given text.

    nginx has no escape for the dollar sign: the templates define $shipshape_dollar for it.
    """
    text = str(value)
    if any(ord(character) < 32 for character in text):
        raise AnsibleFilterError(f"{text!r} holds a control character, which a header or setting of nginx cannot carry")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "${shipshape_dollar}")
    return f'"{text}"'


def _headers(site: Site, defaults: Mapping[str, Any], identifier: str) -> list[dict[str, Any]]:
    """The site's own header replaces a default of the same name, whatever the case; an empty one removes it.

    A default yields to what the application says, a header of the site's own does not.
    """
    merged: dict[str, dict[str, Any]] = {}
    for own, headers in ((False, defaults), (True, site.get("headers") or {})):
        for name, value in headers.items():
            merged[str(name).lower()] = {"name": str(name), "value": "" if value is None else str(value), "own": own}
    found = []
    for key, header in merged.items():
        if not header["value"]:
            continue
        if not re.fullmatch(r"[A-Za-z0-9-]+", header["name"]):
            raise AnsibleFilterError(f"site '{site['name']}': '{header['name']}' is no name of an HTTP header")
        variable = re.sub(r"[^a-z0-9]", "_", key)
        found.append({**header, "upstream": variable, "variable": f"shipshape_{identifier}_{variable}"})
    return found


def _elsewhere(site: Site, said: Mapping[str, Any], prefix: str, where: str) -> dict[str, Any]:
    """How another server is asked for what is below a prefix."""
    parts = urlsplit(str(said["upstream"]))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AnsibleFilterError(
            f"site '{site['name']}': the upstream of {where} is '{said['upstream']}'; "
            "give an address such as https://api.example.com"
        )
    given = {str(name): str(value) for name, value in (said.get("request_headers") or {}).items()}
    if wrong := [name for name in given if is_of_the_proxy(name)]:
        raise AnsibleFilterError(f"site '{site['name']}': {where}: the proxy itself sets the request's {wrong[0]}")
    strip = bool(said.get("strip"))
    return {
        "scheme": parts.scheme,
        "host": parts.hostname,
        "authority": parts.netloc.rpartition("@")[2],
        "timeout": int(said.get("timeout") or 60),
        "prefix": prefix if strip else "",
        "request_headers": given,
        # Without a path the request goes on as it is; with one, the path takes the prefix's place.
        "path": parts.path.rstrip("/"),
        "rewrite": bool(strip or parts.path.rstrip("/")),
        "match": re.escape(prefix),
    }


def _route(site: Site, mount: Mount | None = None) -> dict[str, Any]:
    """How another server is asked for a whole site, or for the path at which it is."""
    said = {"request_headers": _request_headers(site), **site["route"], "strip": mount.strip if mount else False}
    return _elsewhere(site, said, mount.path if mount else "", "the route")


def _location(site: Site, location: Mapping[str, Any]) -> dict[str, Any]:
    """A path that is answered by another server."""
    prefix = plain_path(location["path"], f"site '{site['name']}': the location")
    return {
        "pattern": _below(prefix),
        "order": (-int(location.get("priority") or PRIORITY), -len(prefix)),
        "elsewhere": _elsewhere(site, location, prefix, f"location '{prefix}'"),
    }


def _below(path: str) -> str:
    """A regular expression for the path itself and what is below it, and not for /apis where /api is meant."""
    return _quotable(f"^{re.escape(path)}(?:/|$)")


def _quotable(pattern: str) -> str:
    """A regular expression that can stand in quotes, with what belongs before it in them, too."""
    return pattern.replace('"', '\\"')


def _request_headers(site: Site) -> dict[str, str]:
    """What the application is told beside what all are told."""
    given = {str(name): str(value) for name, value in (site.get("request_headers") or {}).items()}
    if wrong := [name for name in given if is_of_the_proxy(name)]:
        raise AnsibleFilterError(f"site '{site['name']}': the proxy itself sets the request's {wrong[0]}")
    return given


def _proxy(proxy: Mapping[str, Any]) -> dict[str, Any]:
    paths = [str(path).rstrip("/") for path in proxy.get("websockets") or []]
    return {
        **proxy,
        "green": dict(proxy["green"]) if proxy.get("green") else None,
        "timeout": int(proxy.get("timeout") or 60),
        "websocket_everywhere": "" in paths,
    }


def _routes(site: Site) -> list[dict[str, Any]]:
    """What does not go to the site itself, in the order in which it is looked for: priority, then the longer path.

    nginx takes the first regular expression that matches, and the longest of other locations: only the former leave
    the order to us.
    """
    routes = [_location(site, location) for location in site.get("locations") or []]
    for path in (site.get("proxy") or {}).get("websockets") or []:
        if prefix := str(path).rstrip("/"):
            routes.append({"pattern": _below(prefix), "order": (-PRIORITY, -len(prefix)), "elsewhere": None})
    return sorted(routes, key=lambda route: (route["order"], route["pattern"]))


def _ways(site: Site, path: str) -> list[str]:
    """A path of the application as $shipshape_path may have it. Where a prefix is stripped, it is not in there."""
    if site.get("strip"):
        return [path]
    own = [path] if whole_domains(site) else []
    return list(dict.fromkeys(own + [mount.within(path) for mount in mounts(site)]))


def _limit(site: Site, identifier: str, limit: Limit) -> dict[str, Any]:
    """A zone of memory that counts, by a name that stays while it counts the same: nginx refuses another key for it.

    nginx counts by the second or the minute, in whole numbers.
    """
    part = f"_{hashlib.sha256(limit.path.encode()).hexdigest()[:8]}" if limit.path else ""
    rate = f"{limit.number}r/s" if limit.seconds == 1 else f"{max(round(limit.number * 60 / limit.seconds), 1)}r/m"
    return {
        "patterns": [_below(path) for path in _ways(site, limit.path)] if limit.path else [],
        "key": f"$shipshape_{identifier}{part}_who" if part else "$binary_remote_addr",
        "zone": f"shipshape_{identifier}{part}{ {1: '_second', 60: '', 3600: '_hour'}[limit.seconds] }",
        "rate": rate,
        "burst": limit.burst,
    }


def _cors(site: Site) -> dict[str, Any] | None:
    cors = site.get("cors")
    if not cors:
        return None
    return {
        "origins": [str(origin) for origin in cors["origins"]],
        "methods": ",".join(cors.get("methods") or CORS_METHODS),
        "headers": ",".join(cors.get("headers") or CORS_HEADERS),
    }


def nginx_site(site: Site, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A site with everything filled in that its template needs."""
    name = str(site["name"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise AnsibleFilterError(
            f"'{name}' is no name for a site: it becomes a file name, so use letters, digits, '.', '-' and '_'"
        )
    kind = kind_of(site)
    domains = [_host(domain) for domain in whole_domains(site)]
    identifier = re.sub(r"[^A-Za-z0-9]", "_", name)
    redirect_domains = [_host(domain) for domain in site.get("redirect_domains") or []]
    self_signed = bool(site.get("self_signed"))
    closed = bool(maintenance_text(site))
    health = str(site.get("health") or "") if site.get("proxy") else ""
    own_headers = _headers(site, headers or {}, identifier)
    # What is said here is not said by the application as well.
    hidden = [header["name"] for header in own_headers if header["own"]]
    return {
        "name": name,
        "id": identifier,
        "domains": domains,
        "redirect_domains": redirect_domains,
        "names": domains + redirect_domains,
        "certificate": str(site.get("certificate") or f"{TLS}/{name}/fullchain.pem"),
        "certificate_key": str(site.get("certificate_key") or f"{TLS}/{name}/privkey.pem"),
        # A browser that once saw HSTS refuses the click past a self-signed certificate's warning.
        "hsts": bool(site.get("hsts", True)) and not self_signed,
        "static": dict(site["static"]) if site.get("static") else None,
        "proxy": _proxy(site["proxy"]) if site.get("proxy") else None,
        "limits": [] if closed else [_limit(site, identifier, limit) for limit in limits(site)],
        # Of a request that was one too many: by then the slowest of the limits lets one through.
        "again": max((-(-limit.seconds // limit.number) for limit in limits(site)), default=1),
        "users": f"{HOME}/users/{name}" if auth_paths(site) and not closed else "",
        "auth_patterns": [
            pattern
            for path in auth_paths(site)
            for pattern in ([_below(way) for way in _ways(site, path)] if path else [""])
        ],
        "allow": [str(address) for address in site.get("allow") or []],
        "health": health,
        "health_patterns": [_quotable(f"^{re.escape(way)}$") for way in _ways(site, health)] if health else [],
        "closed": closed,
        "retry_after": RETRY_AFTER,
        "route": _route(site) if site.get("route") else None,
        "routes": [] if closed else _routes(site),
        "cors": _cors(site),
        "headers": own_headers,
        "hidden": hidden + (["Access-Control-Allow-Origin"] if site.get("cors") else []),
        "max_body_size": str(site[kind].get("max_body_size") or "") if kind else "",
        "request_headers": _request_headers(site),
    }


Leaf = dict[str, Any]


def _leaf(location: str, kind: str, site: dict[str, Any], **more: Any) -> Leaf:
    """One location of a server that several sites share: it has all settings of its own site, and no other's."""
    return {
        "location": location,
        "kind": kind,
        "site": site,
        "strip": "",
        "prefix": "",
        "base": "",
        "timeout": 60,
        "websocket": False,
        "other": None,
        **more,
    }


def _own_leaves(said: Site, site: dict[str, Any]) -> list[tuple[tuple[int, int], list[Leaf]]]:
    """The locations of the site that has the domain itself, in the groups in which they are looked for."""
    groups = []
    for route in site["routes"]:
        kind = "elsewhere" if route["elsewhere"] else "proxy"
        location = f'~ "{route["pattern"]}"'
        leaf = _leaf(location, kind, site, other=route["elsewhere"], timeout=3600, websocket=True)
        groups.append((route["order"], [leaf]))
    rest = []
    if site["closed"]:
        if site["health"]:
            rest.append(_leaf(f'= "{site["health"]}"', "proxy", site, timeout=site["proxy"]["timeout"]))
        rest.append(_leaf("/", "closed", site))
    elif site["proxy"]:
        everywhere = site["proxy"]["websocket_everywhere"]
        rest.append(_leaf("/", "proxy", site, timeout=site["proxy"]["timeout"], websocket=everywhere))
    elif site["route"]:
        rest.append(_leaf("/", "elsewhere", site, other=site["route"]))
    elif site["static"]:
        if site["static"].get("spa"):
            rest.append(_leaf(f'~* "{_SPA_FILES}"', "file", site))
        rest.append(_leaf("/", "files", site))
    else:
        rest.append(_leaf("/", "nothing", site))
    # Of the lowest priority there is: whatever has a path goes before it.
    return [*groups, ((0, 0), rest)]


#: A missing file is missing; only a page's address falls back to the application.
_SPA_FILES = (
    r"\.(?:js|mjs|css|map|json|webmanifest|png|jpe?g|gif|svg|ico|webp|avif|woff2?|ttf|otf|mp4|webm|wasm|txt|xml|pdf)$"
)


def _mount_leaves(mount: Mount, said: Site, site: dict[str, Any]) -> list[Leaf]:
    """The locations of a site at a path, those first that say more."""
    at = re.escape(mount.path)

    def below(path: str, end: str = "(?:/.*)?") -> str:
        """Where the prefix is stripped, what the site's own rules see is the rest; dots mean line ends, too."""
        rest = re.escape(mount.within(path)[len(mount.path) :])
        name = "?<shipshape_path>" if mount.strip else "?:"
        return f'~ "{_quotable(f"(?s)^{at}({name}{rest}{end})$")}"'

    common: dict[str, Any] = {
        "strip": at if mount.strip else "",
        "prefix": mount.path if mount.strip else "",
        "base": mount.path,
    }
    if site["closed"]:
        timeout = site["proxy"]["timeout"] if site["proxy"] else 60
        health = [_leaf(below(site["health"], ""), "proxy", site, **common, timeout=timeout)] if site["health"] else []
        return [*health, _leaf(below(""), "closed", site, **common)]
    if site["route"]:
        return [_leaf(below(""), "elsewhere", site, **common, other=_route(said, mount))]
    if site["static"]:
        # Without the slash at the end, a page's own links would lead beside it.
        leaves = [_leaf(below("", ""), "slash", site, **common)]
        if site["static"].get("spa"):
            location = below("", "/.*" + _SPA_FILES.removesuffix("$")).replace("~", "~*", 1)
            leaves.append(_leaf(location, "file", site, **common))
        return [*leaves, _leaf(below(""), "files", site, **common)]
    proxy = site["proxy"]
    paths = [str(path).rstrip("/") for path in proxy.get("websockets") or []]
    return [
        *(
            _leaf(below(path), "proxy", site, **common, timeout=3600, websocket=True)
            for path in sorted(filter(None, paths), key=lambda path: (-len(path), path))
        ),
        _leaf(below(""), "proxy", site, **common, timeout=proxy["timeout"], websocket=proxy["websocket_everywhere"]),
    ]


def _servers(
    said: Site, site: dict[str, Any], guests: Mapping[str, list[tuple[Mount, Site]]], planned: Mapping[str, Any]
) -> list[dict[str, Any]]:
    """A site's servers: one for all of its domains, and one each for those on which other sites have paths."""
    own, shared = [], []
    for name in whole_domains(said):
        rows = guests.get(str(name).lower()) or []
        if not rows and said.get("empty"):
            raise AnsibleFilterError(f"site '{said['name']}' is empty, and no other site has a path on {name}")
        if not rows:
            own.append(_host(name))
            continue
        groups = _own_leaves(said, site)
        groups += [
            ((-mount.priority, -len(mount.path)), _mount_leaves(mount, guest, planned[guest["name"]]))
            for mount, guest in rows
        ]
        leaves = [leaf for _order, group in sorted(groups, key=lambda group: group[0]) for leaf in group]
        sites = list({leaf["site"]["name"]: leaf["site"] for leaf in leaves}.values())
        shared.append({"names": [_host(name)], "leaves": leaves, "sites": sites})
    return ([{"names": own, "leaves": [], "sites": []}] if own else []) + shared


def nginx_files(sites: Iterable[Site], headers: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The files of all sites as entries for the module files: its servers, and apart from them its upstream.

    They are apart so that each of the two says one thing: where an application listens, and how a site is served.
    """
    sites = list(sites)
    files = [_page("unavailable", UNAVAILABLE)]
    for said in sites:
        if text := maintenance_text(said):
            files.append(_page(f"maintenance-{said['name']}", text))
        if auth_paths(said):
            text = "".join(f"{line}\n" for line in users(said))
            secret = {"content": text, "mode": "0640", "group": "www-data", "secret": True}
            files.append({"path": f"{HOME}/users/{said['name']}", **secret, "reload": SERVICE})
    planned = {site["name"]: nginx_site(site, headers) for site in sites}
    owners(sites)
    guests = mounted(sites)
    for said in sites:
        site = planned[said["name"]]
        if site["proxy"]:
            files.append(_file(f"{HOME}/upstreams/{site['name']}.conf", "upstream.conf.j2", site))
        site = {**site, "servers": _servers(said, site, guests, planned)}
        files.append(_file(f"{HOME}/sites/{site['name']}.conf", "site.conf.j2", site))
    return files


def _page(name: str, text: str) -> dict[str, Any]:
    return {"path": f"{HOME}/pages/{name}.html", "content": page(text)}


def _file(path: str, template: str, site: dict[str, Any]) -> dict[str, Any]:
    return {"path": path, "template": template, "vars": {"site": site}, "reload": SERVICE}


def nginx_default_certificate(sites: Iterable[Site], version: str) -> dict[str, str] | None:
    """What the server for unknown names shows on port 443; nothing where nginx can refuse the handshake.

    A client that connects to a bare address sends no name, so its handshake is always the default server's:
    a site on an address lends it its certificate.
    """
    for site in (nginx_site(site) for site in sites):
        if any(_is_address(name) for name in site["names"]):
            return {"certificate": site["certificate"], "key": site["certificate_key"]}
    if nginx_features(version)["reject_handshake"]:
        return None
    return {"certificate": f"{TLS}/default/fullchain.pem", "key": f"{TLS}/default/privkey.pem"}


def nginx_self_signed(sites: Iterable[Site], version: str) -> list[dict[str, Any]]:
    """The certificates that must exist before nginx can start, for the module web_server."""
    sites = list(sites)
    wanted = [
        {"certificate": site["certificate"], "key": site["certificate_key"], "names": site["names"]}
        for site in (nginx_site(site) for site in sites)
        if site["names"]
    ]
    default = nginx_default_certificate(sites, version)
    if default and default["certificate"] not in [item["certificate"] for item in wanted]:
        wanted.append({**default, "names": ["default.invalid"]})
    return wanted


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "nginx_default_certificate": nginx_default_certificate,
            "nginx_features": nginx_features,
            "nginx_files": nginx_files,
            "nginx_quote": nginx_quote,
            "nginx_self_signed": nginx_self_signed,
        }
