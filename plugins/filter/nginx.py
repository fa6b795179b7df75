"""Filters that turn the sites of the nginx role into files, certificates and settings: pure functions."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

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
    return {"http2_directive": patched >= (1, 25, 1), "reject_handshake": patched >= (1, 19, 4)}


def nginx_quote(value: Any) -> str:
    """A double-quoted nginx parameter that means exactly the given text.

    nginx has no escape for the dollar sign: the templates define $shipshape_dollar for it.
    """
    text = str(value)
    if any(ord(character) < 32 for character in text):
        raise AnsibleFilterError(f"{text!r} holds a control character, which a header or setting of nginx cannot carry")
    text = text.replace("\\", "\\\\").replace('"', '\\"').replace("$", "${shipshape_dollar}")
    return f'"{text}"'


def _headers(site: Site, defaults: Mapping[str, Any], identifier: str) -> list[dict[str, str]]:
    """The site's own header replaces a default of the same name, whatever the case; an empty one removes it."""
    merged: dict[str, tuple[str, str]] = {}
    for name, value in (*defaults.items(), *(site.get("headers") or {}).items()):
        merged[str(name).lower()] = (str(name), "" if value is None else str(value))
    found = []
    for key, (name, value) in merged.items():
        if not value:
            continue
        if not re.fullmatch(r"[A-Za-z0-9-]+", name):
            raise AnsibleFilterError(f"site '{site['name']}': '{name}' is no name of an HTTP header")
        variable = re.sub(r"[^a-z0-9]", "_", key)
        found.append(
            {"name": name, "value": value, "upstream": variable, "variable": f"shipshape_{identifier}_{variable}"}
        )
    return found


def _location(site: Site, location: Mapping[str, Any]) -> dict[str, Any]:
    """Where a path goes when it is answered by another server."""
    parts = urlsplit(str(location["upstream"]))
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise AnsibleFilterError(
            f"site '{site['name']}': the upstream of location '{location['path']}' is '{location['upstream']}'; "
            "give an address such as https://api.example.com"
        )
    path = str(location["path"])
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+/?", path):
        raise AnsibleFilterError(f"site '{site['name']}': the location '{path}' must be a path below /, such as /api")
    prefix = path.rstrip("/")
    return {
        "prefix": prefix,
        "scheme": parts.scheme,
        "host": parts.hostname,
        "authority": parts.netloc.rpartition("@")[2],
        # Without a path the request goes on as it is; with one, the path takes the prefix's place.
        "path": parts.path.rstrip("/"),
        "timeout": int(location.get("timeout") or 60),
        "match": re.escape(prefix),
    }


def _proxy(proxy: Mapping[str, Any]) -> dict[str, Any]:
    paths = [str(path).rstrip("/") for path in proxy.get("websockets") or []]
    return {
        **proxy,
        "green": dict(proxy["green"]) if proxy.get("green") else None,
        "timeout": int(proxy.get("timeout") or 60),
        "websockets": [path for path in paths if path],
        "websocket_everywhere": "" in paths,
    }


def nginx_site(site: Site, headers: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A site with everything filled in that its template needs."""
    name = str(site["name"])
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise AnsibleFilterError(
            f"'{name}' is no name for a site: it becomes a file name, so use letters, digits, '.', '-' and '_'"
        )
    kinds = [kind for kind in ("static", "proxy") if site.get(kind)]
    if len(kinds) != 1:
        raise AnsibleFilterError(
            f"site '{name}' must have either static or proxy; found {' and '.join(kinds) or 'neither'}"
        )
    domains = [_host(domain) for domain in site.get("domains") or []]
    if not domains:
        raise AnsibleFilterError(
            f"site '{name}' has no domains: name at least one, or the droplet's address with self_signed: true"
        )
    identifier = re.sub(r"[^A-Za-z0-9]", "_", name)
    redirect_domains = [_host(domain) for domain in site.get("redirect_domains") or []]
    self_signed = bool(site.get("self_signed"))
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
        "rate_limit": dict(site["rate_limit"]) if site.get("rate_limit") else None,
        "locations": [_location(site, location) for location in site.get("locations") or []],
        "headers": _headers(site, headers or {}, identifier),
    }


def nginx_files(sites: Iterable[Site], headers: Mapping[str, Any] | None = None) -> list[dict[str, Any]]:
    """The files of all sites as entries for the module files: its servers, and apart from them its upstream.

    They are apart so that each of the two says one thing: where an application listens, and how a site is served.
    """
    files: list[dict[str, Any]] = []
    for site in (nginx_site(site, headers) for site in sites):
        if site["proxy"]:
            files.append(_file(f"{HOME}/upstreams/{site['name']}.conf", "upstream.conf.j2", site))
        files.append(_file(f"{HOME}/sites/{site['name']}.conf", "site.conf.j2", site))
    return files


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
