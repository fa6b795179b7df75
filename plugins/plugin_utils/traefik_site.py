"""One site of the traefik role as Traefik's dynamic configuration: routers, middlewares, services."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from ansible.errors import AnsibleFilterError

from .site import (
    CORS_HEADERS,
    CORS_METHODS,
    PRIORITY,
    Limit,
    Mount,
    auth_paths,
    covers,
    is_of_the_proxy,
    kind_of,
    limits,
    maintenance_text,
    mounts,
    owners,
    plain_path,
    whole_domains,
)

Row = dict[str, Any]
Site = Mapping[str, Any]
Settings = Mapping[str, Any]

#: Where a site's certificate is that Traefik does not get by itself.
TLS = "/etc/shipshape/tls"
#: The resolver of Traefik's own certificates.
ACME = "acme"
#: The file server behind Traefik, which serves no files itself.
FILES = "shipshape-files"
#: Pages of ours, which the file server has, and where.
PAGES = "shipshape-pages"
PAGES_PATH = "/shipshape"
#: .git, .env and the like are nobody's business: no router takes them, and Traefik itself answers with 404. The second
#: expression is what may be asked for below /.well-known/, which must not hide another such part.
NO_DOTFILES = r"(!PathRegexp(`/\.`) || PathRegexp(`^/\.well-known(/[^./][^/]*)*/?$`))"
#: Below every path that has a service of its own.
APP_PRIORITY = 1000
PERIODS = {1: "1s", 60: "1m", 3600: "1h"}
EVERYWHERE = "PathPrefix(`/`)"
#: What asks without sending anything; a reader that says to send something is treated as a writer.
NO_BODY = "(Method(`GET`) || Method(`HEAD`)) && !HeaderRegexp(`Content-Length`, `[1-9]`)"
UPGRADE = "HeaderRegexp(`Upgrade`, `(?i)^websocket$`)"
SIZES = {"": 1, "k": 1024, "m": 1024**2, "g": 1024**3}


def identifier(name: Any) -> str:
    text = str(name)
    # No '@', which in Traefik names the provider, and nothing that a file's name cannot have.
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", text):
        raise AnsibleFilterError(
            f"'{text}' is no name for a site: it becomes a file name, so use letters, digits, '.', '-' and '_'"
        )
    return text


def _size(value: Any, where: str) -> int:
    found = re.fullmatch(r"(\d+)([kmg]?)", str(value).strip().lower())
    if not found:
        raise AnsibleFilterError(f"{where}: '{value}' is no size; give a number such as 10m")
    return int(found[1]) * SIZES[found[2]]


def _quoted(text: str) -> str:
    """A text in a router's rule."""
    if "`" in text:
        raise AnsibleFilterError(f"{text!r} holds a backtick, which a rule of Traefik cannot carry")
    return f"`{text}`"


def _hosts(names: Iterable[Any]) -> str:
    return "(" + " || ".join(_host_rule(str(name)) for name in names) + ")"


def _host_rule(name: str) -> str:
    if name.startswith("*."):
        return f"HostRegexp(`^[^.]+{re.escape(name[1:])}$`)"
    # Host() refuses an IPv6 address.
    host = _host(name)
    return f"HostRegexp(`^{re.escape(host)}$`)" if host.startswith("[") else f"Host({_quoted(host)})"


def _host(name: Any) -> str:
    text = str(name).strip("[]")
    return f"[{text}]" if ":" in text else text


def _below(path: str) -> str:
    """The path itself and what is below it; PathPrefix alone would take /apis for /api."""
    return f"(Path({_quoted(path)}) || PathPrefix({_quoted(path + '/')}))"


def hsts_value(hsts: Mapping[str, Any]) -> str:
    parts = [f"max-age={int(hsts['max_age'])}"]
    parts += ["includeSubDomains"] if hsts.get("include_subdomains") else []
    parts += ["preload"] if hsts.get("preload") else []
    return "; ".join(parts)


def merged_headers(site: Site, defaults: Mapping[str, Any]) -> dict[str, str]:
    """The site's own header replaces a default of the same name, whatever the case; an empty one removes it."""
    merged: dict[str, tuple[str, str]] = {}
    for name, value in (*defaults.items(), *(site.get("headers") or {}).items()):
        if not re.fullmatch(r"[A-Za-z0-9-]+", str(name)):
            raise AnsibleFilterError(f"site '{site['name']}': '{name}' is no name of an HTTP header")
        merged[str(name).lower()] = (str(name), "" if value is None else str(value))
    return {name: value for name, value in merged.values() if value}


def _transport(timeout: Any) -> Row:
    return {
        # As where no transport is named. In one that is, it is Go's 2, and every further request that comes at the same
        # time opens a connection to the application anew.
        "maxIdleConnsPerHost": 200,
        "forwardingTimeouts": {
            "dialTimeout": "5s",
            "responseHeaderTimeout": f"{int(timeout or 60)}s",
            # Shorter than any application server's own (gunicorn 2 s, uvicorn and Node 5 s): a request must not meet a
            # connection that the application is just closing.
            "idleConnTimeout": "1s",
        },
    }


def _seen(settings: Settings) -> Row:
    """Whose request it is: that of who has connected, unless a proxy in front says it."""
    trusted = [str(address) for address in settings.get("trusted_proxies") or []]
    return {"ipStrategy": {"excludedIPs": trusted}} if trusted else {}


def _rate_limit(limit: Limit, settings: Settings) -> Row:
    """nginx lets one request and `burst` more come at once; Traefik's burst counts the first, too."""
    row: Row = {"average": limit.number, "period": PERIODS[limit.seconds], "burst": limit.burst + 1}
    if seen := _seen(settings):
        row["sourceCriterion"] = seen
    return {"rateLimit": row}


def has_own_acme(site: Site, settings: Settings) -> bool:
    """Whether Traefik gets the certificate by itself: of a site that names none, or the place where others put one."""
    usual = f"{TLS}/{site['name']}/fullchain.pem"
    given = site.get("self_signed") or str(site.get("certificate") or usual) != usual
    return bool(settings.get("acme_email")) and not given


def _priority(path: str = "", given: Any = None) -> int:
    return int(given or PRIORITY) * 1000 + len(path)


class _Site:
    """One site on its way into routers, middlewares, services and transports."""

    def __init__(self, site: Site, settings: Settings, owners: Mapping[str, Site] | None = None) -> None:
        self.site, self.settings, self.owners = site, settings, owners or {}
        #: What its service is called, and what all of its routers begin with. A colon follows, which no site's name
        #: has: there may be a site `shop` and a site `shop-app`.
        self.service = self.name = identifier(site["name"])
        self.kind = kind_of(site)
        self.domains = whole_domains(site)
        #: The site that has the certificate.
        self.owner = site
        self.routers: Row = {}
        self.middlewares: Row = {}
        self.services: Row = {}
        self.transports: Row = {}
        #: The routers through which all others are come to.
        self.parents = [self.name]

    def path(self, path: str) -> str:
        """A path of the application as its own routers see it."""
        return path

    @property
    def health(self) -> str:
        return self.path(str(self.site.get("health") or "")) if self.site.get("health") else ""

    @property
    def prefix(self) -> str:
        """What of the path belongs to where the site is, and is seen by it."""
        return ""

    def tls(self, names: Sequence[str]) -> Row:
        # What would be refused is not asked for.
        obstacles = self.settings.get("obstacles") or {}
        if not has_own_acme(self.owner, self.settings) or self.owner["name"] in obstacles:
            return {}
        # From a wildcard's rule Traefik does not learn the names.
        wildcard = any(name.startswith("*.") for name in names)
        domains: Row = {"domains": [{"main": names[0], "sans": list(names[1:])}]} if wildcard else {}
        return {"certResolver": ACME} | domains

    def root(
        self,
        part: str,
        rule: str,
        middlewares: list[str],
        names: Sequence[str],
        service: str = "",
        priority: int = APP_PRIORITY,
    ) -> None:
        """What a request for one of the names meets first. Without a service, one of the routers that have it as a
        parent goes on."""
        # A name goes before the wildcard of another site.
        priority -= any(name.startswith("*.") for name in names)
        row: Row = {"entryPoints": ["websecure"], "rule": rule, "priority": priority, "middlewares": middlewares}
        row |= ({"service": service} if service else {}) | {"tls": self.tls(names)}
        self.routers[f"{self.name}:{part}" if part else self.name] = row

    def router(self, part: str, rule: str, service: str, middlewares: list[str], priority: int) -> None:
        """What answers in the end, whichever way it is come to."""
        self.routers[f"{self.name}:{part}"] = {
            "rule": rule,
            "priority": priority,
            "middlewares": middlewares,
            "service": service,
            "parentRefs": self.parents,
        }

    def middleware(self, part: str, value: Row) -> str:
        name = f"{self.name}:{part}"
        self.middlewares[name] = value
        return name

    def headers(self) -> str:
        # Traefik knows no header that yields to the application's own: what is declared here replaces it.
        response = merged_headers(self.site, self.settings.get("headers") or {})
        # A browser that once saw HSTS refuses the click past a self-signed certificate's warning. The empty value takes
        # out what the application says: whether a browser must use TLS is decided where TLS ends.
        hsts = bool(self.owner.get("hsts", True)) and not self.owner.get("self_signed")
        response["Strict-Transport-Security"] = hsts_value(self.settings["hsts"]) if hsts else ""
        response["Server"] = ""
        headers: Row = {"customRequestHeaders": {"Forwarded": "", "Proxy": ""}, "customResponseHeaders": response}
        if cors := self.site.get("cors"):
            # Who may ask is said here, and not by the application as well.
            response["Access-Control-Allow-Origin"] = ""
            headers |= {
                "accessControlAllowOriginList": [str(origin) for origin in cors["origins"]],
                "accessControlAllowMethods": list(cors.get("methods") or CORS_METHODS),
                "accessControlAllowHeaders": list(cors.get("headers") or CORS_HEADERS),
                "accessControlMaxAge": 600,
                "addVaryHeader": True,
            }
        return self.middleware("headers", {"headers": headers})

    def redirects(self, headers: str) -> None:
        names = [str(name) for name in self.site.get("redirect_domains") or []]
        if not names:
            return
        target = {"regex": r"^https?://[^/]+/(.*)$", "replacement": f"https://{_host(self.domains[0])}/${{1}}"}
        redirect = self.middleware("redirect", {"redirectRegex": {**target, "permanent": True}})
        self.root("redirect", _hosts(names), [headers, redirect], names, "noop@internal")

    def other(self, part: str, rule: str, said: Mapping[str, Any], prefix: str, priority: int, body: str) -> None:
        """What another server answers: it is asked by its own name, as is its certificate."""
        where = f"location '{prefix}'" if prefix else "the route"
        parts = urlsplit(str(said["upstream"]))
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise AnsibleFilterError(
                f"site '{self.name}': the upstream of {where} is '{said['upstream']}'; "
                "give an address such as https://api.example.com"
            )
        chain = self.told(f"{part}-headers", said, f": {where}")
        below = re.escape(prefix)
        if said.get("strip"):
            chain.append(self.middleware(f"{part}-strip", {"stripPrefix": {"prefixes": [prefix]}}))
            below = ""
        if target := parts.path.rstrip("/"):
            replaced = {"regex": f"^{below}(?:/(.*))?$", "replacement": f"{target}/$1"}
            chain.append(self.middleware(part, {"replacePathRegex": replaced}))
        name = f"{self.name}:{part}"
        url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        self.services[name] = {
            "loadBalancer": {"servers": [{"url": url}], "passHostHeader": False, "serversTransport": name}
        }
        self.transports[name] = _transport(said.get("timeout"))
        self.router(part, rule, name, ["shipshape-down", *chain, body], priority)
        # What is buffered cannot become a WebSocket.
        self.router(f"{part}-websocket", f"{rule} && {UPGRADE}", name, chain, priority + 1)

    def told(self, part: str, said: Mapping[str, Any], where: str = "") -> list[str]:
        """What the application is told beside what all are told."""
        given = said.get("request_headers")
        if not given:
            return []
        if wrong := [name for name in given if is_of_the_proxy(str(name))]:
            raise AnsibleFilterError(f"site '{self.service}'{where}: the proxy itself sets the request's {wrong[0]}")
        named = {"customRequestHeaders": {str(name): str(value) for name, value in given.items()}}
        return [self.middleware(part, {"headers": named})]

    def add(self, other: _Site) -> None:
        """Take in what belongs to this site, too."""
        other.answers()
        self.routers |= other.routers
        self.middlewares |= other.middlewares
        self.services |= other.services
        self.transports |= other.transports

    def location(self, number: int, location: Mapping[str, Any], body: str) -> None:
        prefix = plain_path(location["path"], f"site '{self.name}': the location")
        priority = _priority(prefix, location.get("priority"))
        self.other(f"location-{number}", _below(prefix), location, prefix, priority, body)

    def body(self, part: Mapping[str, Any]) -> str:
        size = _size(part.get("max_body_size") or self.settings["max_body_size"], f"site '{self.name}'")
        return self.middleware("body", {"buffering": {"maxRequestBodyBytes": size, "disableResponseBuffer": True}})

    def proxy(self, proxy: Mapping[str, Any], body: str) -> None:
        self.transports[self.service] = _transport(proxy.get("timeout"))
        # Only what did not reach the application is asked again, so that this is safe for any method.
        retry = self.middleware("retry", {"retry": {"attempts": 2, "initialInterval": "100ms"}})
        told = self.told("told", self.site)
        chain = ["shipshape-down", retry, *told]
        if maintenance_text(self.site):
            if self.health:
                rule = f"Path({_quoted(self.health)})"
                self.router("health", rule, self.service, [*chain, body], _priority(self.health, 1000))
            return
        paths = [str(path).rstrip("/") for path in proxy.get("websockets") or []]
        # What is buffered cannot become a WebSocket.
        for number, path in enumerate(paths):
            rule = f"{UPGRADE} && {_below(self.path(path))}" if path else UPGRADE
            self.router(f"websocket-{number}", rule, self.service, [retry, *told], _priority(path))
        self.router("app", EVERYWHERE, self.service, [*chain, body], APP_PRIORITY)
        # To keep a body that is not there costs a twentieth of what Traefik can do.
        self.router("app-read", NO_BODY, self.service, chain, APP_PRIORITY + 1)

    def closed(self) -> None:
        """What a site answers while it is closed."""
        replaced = {"replacePath": {"path": f"{PAGES_PATH}/{self.service}"}}
        self.router("maintenance", EVERYWHERE, PAGES, [self.middleware("maintenance", replaced)], APP_PRIORITY)

    def layers(self) -> None:
        """Routers between the site's own and those that answer, where not all paths are to be treated alike.

        Each counts for itself, so that all requests for a limited path go through one; a limit within another's path
        has one of its own for both.
        """
        open_now = not maintenance_text(self.site)
        given = [limit for limit in limits(self.site) if limit.path] if open_now else []
        given = [replace(limit, path=self.path(limit.path)) for limit in given]
        asked = [self.path(path) if path else "" for path in auth_paths(self.site)] if open_now else []
        allow = ""
        if addresses := [str(address) for address in self.site.get("allow") or []]:
            listed: Row = {"sourceRange": addresses}
            if seen := _seen(self.settings):
                listed |= seen
            allow = self.middleware("allow", {"ipAllowList": listed})
        numbered = {
            limit: self.middleware(f"limit-{number}", _rate_limit(limit, self.settings))
            for number, limit in enumerate(given)
        }
        auth = f"{self.service}:users" if asked else ""
        if not (allow or numbered or auth):
            return
        paths = dict.fromkeys(["", *(limit.path for limit in given), *(path for path in asked if path)])
        self.parents = []

        def layer(part: str, rule: str, priority: int, path: str, watched: bool) -> None:
            chain = [allow] if allow and watched else []
            chain += [name for limit, name in numbered.items() if covers(limit.path, path)]
            chain += [auth] if watched and any(covers(above, path) for above in asked) else []
            name = f"{self.name}:{part}"
            row = {"rule": rule, "priority": priority, "middlewares": chain, "parentRefs": [self.name]}
            self.routers[name] = row
            self.parents.append(name)

        for number, path in enumerate(paths):
            layer(f"layer-{number}", _below(path) if path else EVERYWHERE, 1 + len(path), path, True)
        # For Traefik %2f is no slash, for who answers it may be: what is written so meets every guard there is.
        if any(paths):
            name = f"{self.name}:layer-written"
            chain = [*([allow] if allow else []), *numbered.values(), *([auth] if auth else [])]
            row = {"rule": "PathRegexp(`(?i)%2f`)", "priority": 9000, "middlewares": chain, "parentRefs": [self.name]}
            self.routers[name] = row
            self.parents.append(name)
        # Whoever looks after the droplet has no password.
        if self.health and (allow or asked):
            layer("layer-health", f"Path({_quoted(self.health)})", 10000, self.health, False)

    def way_in(self, chain: list[str]) -> None:
        """The router through which all others are come to."""
        self.root("", f"{_hosts(self.domains)} && {NO_DOTFILES}", chain, self.domains)

    def files(self, body: str) -> None:
        self.router("files", EVERYWHERE, FILES, [body], APP_PRIORITY)

    def answers(self) -> None:
        """All that answers, and the ways there."""
        headers = self.headers()
        self.redirects(headers)
        chain = [headers]
        closed = bool(maintenance_text(self.site))
        whole = [limit for limit in limits(self.site) if not limit.path and not closed]
        for limit in whole:
            part = "limit" if len(whole) == 1 else f"limit-{PERIODS[limit.seconds]}"
            chain.append(self.middleware(part, _rate_limit(limit, self.settings)))
        self.way_in([*chain, "shipshape-compress"])
        if not self.kind:
            replaced = self.middleware("nothing", {"replacePath": {"path": f"{PAGES_PATH}/nothing"}})
            self.router("nothing", EVERYWHERE, PAGES, [replaced], APP_PRIORITY)
            return
        self.layers()
        body = self.body(self.site[self.kind])
        for number, location in enumerate(self.site.get("locations") or [] if not closed else []):
            self.location(number, location, body)
        if self.kind == "proxy":
            self.proxy(self.site["proxy"], body)
        if closed:
            self.closed()
        elif self.kind == "route":
            said = {"request_headers": self.site.get("request_headers"), **self.site["route"]}
            self.other("route", EVERYWHERE, said, self.prefix, APP_PRIORITY, body)
        elif self.kind == "static":
            self.files(body)

    def dynamic(self) -> Row:
        if self.domains:
            self.answers()
        for number, mount in enumerate(mounts(self.site)):
            self.add(_Mounted(self.site, self.settings, mount, number, self.owners[mount.domain.lower()]))
        parts = {
            "routers": self.routers,
            "middlewares": self.middlewares,
            "services": self.services,
            "serversTransports": self.transports,
        }
        # Traefik refuses an empty section.
        return {"http": {name: part for name, part in parts.items() if part}}


class _Mounted(_Site):
    """A site at a path of a domain. Its routers are beside those of the domain's own site, and ask none of those."""

    def __init__(self, site: Site, settings: Settings, mount: Mount, number: int, owner: Site) -> None:
        super().__init__(site, settings)
        self.mount, self.owner = mount, owner
        # No name of an app has a dot.
        self.name = f"{self.service}.{number}"
        self.parents = [self.name]

    def path(self, path: str) -> str:
        return path if self.mount.strip else self.mount.within(path)

    @property
    def prefix(self) -> str:
        return "" if self.mount.strip else self.mount.path

    def redirects(self, headers: str) -> None:
        """Other names lead to a domain."""

    def rule(self, path_rule: str) -> str:
        """What comes to this path, unless the domain's own site has led it elsewhere before."""
        rule = f"{_hosts([self.mount.domain])} && {path_rule} && {NO_DOTFILES}"
        for location in self.owner.get("locations") or [] if not maintenance_text(self.owner) else []:
            path = plain_path(location["path"], f"site '{self.owner['name']}': the location")
            goes_before = _priority(path, location.get("priority")) > self.priority
            if goes_before and (covers(path, self.mount.path) or covers(self.mount.path, path)):
                rule += f" && !{_below(path)}"
        return rule

    @property
    def priority(self) -> int:
        return _priority(self.mount.path, self.mount.priority)

    def way_in(self, chain: list[str]) -> None:
        # All that follows sees the rest of the path alone.
        if self.mount.strip:
            strip = self.middleware("strip", {"stripPrefix": {"prefixes": [self.mount.path]}})
            # Of the prefix alone nothing is left, which no rule would match.
            slash = self.middleware("strip-all", {"replacePathRegex": {"regex": "^$", "replacement": "/"}})
            chain = [*chain, strip, slash]
        self.root("", self.rule(_below(self.mount.path)), chain, [self.mount.domain], priority=self.priority)

    def files(self, body: str) -> None:
        # The file server knows it by a name of ours.
        host = self.middleware("host", {"headers": {"customRequestHeaders": {"Host": f"{self.name}.{FILES}"}}})
        self.router("files", EVERYWHERE, FILES, [host, body], APP_PRIORITY)
        # Without the slash at the end, a page's own links would lead beside it.
        target = {"regex": rf"^(https?://[^/]+{re.escape(self.mount.path)})(\?.*)?$", "replacement": "${1}/${2}"}
        slash = self.middleware("slash", {"redirectRegex": {**target, "permanent": True}})
        rule = self.rule(f"Path({_quoted(self.mount.path)})")
        chain = [f"{self.name}:headers", slash]
        self.root("slash", rule, chain, [self.mount.domain], "noop@internal", self.priority + 1)


def traefik_site(site: Site, settings: Settings, sites: Iterable[Site] = ()) -> Row:
    """The dynamic configuration of one site among all, apart from the addresses of its app."""
    return _Site(site, settings, owners([*sites] or [site])).dynamic()
