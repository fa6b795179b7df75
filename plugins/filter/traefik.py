"""Filters that turn the sites of the traefik role into its configuration: pure functions from dicts to dicts."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible_collections.shipshape.droplet.plugins.module_utils.certificates import is_address
from ansible_collections.shipshape.droplet.plugins.plugin_utils.site import (
    UNAVAILABLE,
    auth_paths,
    maintenance_text,
    mounts,
    page,
    users,
    whole_domains,
)
from ansible_collections.shipshape.droplet.plugins.plugin_utils.traefik_site import (
    ACME,
    FILES,
    PAGES,
    PAGES_PATH,
    TLS,
    Row,
    Settings,
    Site,
    has_own_acme,
    identifier,
    traefik_site,
)

#: What the role writes. The droplet's own program checks it and takes it live, into the directory that Traefik watches.
DECLARED = "/etc/traefik/declared"
DYNAMIC = "/etc/traefik/dynamic"
SERVICE = "traefik.service"
LETS_ENCRYPT = "https://acme-v02.api.letsencrypt.org/directory"
CHALLENGES = "shipshape-challenges"
PAGES_DIRECTORY = "/etc/traefik/pages"

#: Mozilla's intermediate configuration in Go's names. Those of TLS 1.3 cannot be chosen.
INTERMEDIATE = [
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256",
]
COMPRESSED = [
    "text/plain", "text/html", "text/css", "text/xml", "text/javascript", "application/javascript", "application/json",
    "application/manifest+json", "application/xml", "application/rss+xml", "application/wasm", "image/svg+xml",
]  # fmt: skip


def acme_storage(directory: str) -> str:
    """Where the account and the certificates of an authority are kept.

    Traefik shows what it has of a name, whoever issued it: certificates for tests would stay until their end after the
    switch to real ones. So each authority has a file of its own; the way back finds what it had.
    """
    host = "" if directory in ("", LETS_ENCRYPT) else "-" + str(urlsplit(directory).hostname or "")
    return f"/var/lib/traefik/acme{host}.json"


def traefik_static(settings: Settings) -> Row:
    """The static file: what Traefik reads once, when it starts."""
    # The droplet itself is one: a site of ours may pass a path on to another site of ours.
    trusted = [str(address) for key in ("own_addresses", "trusted_proxies") for address in settings.get(key) or []]
    # What clients claim in X-Forwarded-For and the like is removed, unless a proxy in front of us says it; so is
    # X_Forwarded_For, which many applications cannot tell from it.
    common: Row = {"aliasHeadersStrategy": "delete"}
    forwarded: Row = {"forwardedHeaders": {"trustedIPs": trusted}} if trusted else {}
    # A body may take as long as the longest request; a silent connection is closed as nginx closes it.
    transport = {
        "respondingTimeouts": {"readTimeout": "600s", "idleTimeout": "65s"},
        "lifeCycle": {"graceTimeOut": f"{int(settings['drain_seconds'])}s"},
    }
    redirect = {"entryPoint": {"to": "websecure", "scheme": "https", "permanent": True, "priority": 1}}
    # What tries the names before Traefik asks for them is answered beside Traefik's own challenges.
    bypass: Row = {"allowACMEByPass": True} if settings.get("acme_email") else {}
    static: Row = {
        "global": {"checkNewVersion": False, "sendAnonymousUsage": False},
        "entryPoints": {
            "web": {
                "address": ":80",
                **bypass,
                "transport": transport,
                **forwarded,
                "http": {**common, "redirections": redirect},
            },
            "websecure": {
                "address": ":443",
                "transport": transport,
                **forwarded,
                "http": {**common, "tls": {}},
                **({"http3": {}} if settings.get("http3") else {}),
            },
            "metrics": {"address": f"127.0.0.1:{int(settings['metrics_port'])}", "http": common},
        },
        "providers": {
            # A switch of an app's colour acts at once, and not after the usual two seconds.
            "providersThrottleDuration": "100ms",
            "file": {"directory": DYNAMIC, "watch": True},
        },
        "log": {"level": "WARN", "format": "json"},
        "accessLog": {
            "filePath": "/var/log/traefik/access.log",
            "format": "json",
            # Lines that may wait to be written while requests are answered; none waits for others to come.
            "bufferingSize": 1000,
            # Cookies and passwords stay out of the log.
            "fields": {"headers": {"defaultMode": "drop", "names": {"User-Agent": "keep", "Referer": "keep"}}},
        },
        # By service, which is an app or another host: to count by router, too, would cost each request more.
        "metrics": {"prometheus": {"entryPoint": "metrics"}},
    }
    if settings.get("acme_email"):
        acme: Row = {
            "email": str(settings["acme_email"]),
            "storage": acme_storage(str(settings.get("acme_directory") or "")),
            "keyType": "EC256",
        }
        if provider := settings.get("acme_dns_provider"):
            acme["dnsChallenge"] = {"provider": str(provider)}
            if seconds := int(settings.get("acme_dns_propagation_seconds") or 0):
                acme["dnsChallenge"]["propagation"] = {"delayBeforeChecks": f"{seconds}s"}
        else:
            acme["httpChallenge"] = {"entryPoint": "web"}
        if hours := int(settings.get("acme_renewal_hours") or 0):
            acme["certificatesDuration"] = hours
        if settings.get("acme_directory"):
            acme["caServer"] = str(settings["acme_directory"])
        if settings.get("acme_ca_bundle"):
            acme["caCertificates"] = [str(settings["acme_ca_bundle"])]
        static["certificatesResolvers"] = {ACME: {"acme": acme}}
    return static


def traefik_base(sites: Iterable[Site], settings: Settings) -> Row:
    """What all sites share: TLS, and middlewares that say the same everywhere."""
    sites = list(sites)
    on_address = any(is_address(name) for site in sites for name in whole_domains(site))
    tls: Row = (
        {"minVersion": "VersionTLS13"}
        if settings["tls_policy"] == "modern"
        else {"minVersion": "VersionTLS12", "cipherSuites": INTERMEDIATE}
    )
    # Whoever asks for an unknown name gets no answer. A client that connects to a bare address sends no name at all.
    tls["sniStrict"] = not on_address
    middlewares: Row = {
        "shipshape-compress": {
            "compress": {"encodings": ["br", "gzip"], "includedContentTypes": COMPRESSED, "minResponseBodyBytes": 1024}
        }
    }
    http: Row = {"middlewares": middlewares}
    url = f"http://127.0.0.1:{int(settings['files_port'])}"
    if sites:
        pages = {"servers": [{"url": url}], "passHostHeader": False}
        http["services"] = {FILES: {"loadBalancer": {"servers": [{"url": url}]}}, PAGES: {"loadBalancer": pages}}
        # What Traefik says by itself when an application is not there. It has no way to tell that from the same number
        # said by the application, which few applications ever say.
        down = {"status": ["502", "504"], "service": PAGES, "query": f"{PAGES_PATH}/unavailable.html"}
        middlewares["shipshape-down"] = {"errors": down}
    if settings.get("acme_webroot"):
        # Asked without the name in the request: for a challenge any name is right, also one that is no site yet.
        http.setdefault("services", {})[CHALLENGES] = {
            "loadBalancer": {"servers": [{"url": url}], "passHostHeader": False}
        }
        ours = "shipshape-" if settings.get("acme_email") else ""
        rule = f"PathPrefix(`/.well-known/acme-challenge/{ours}`)"
        http["routers"] = {CHALLENGES: {"entryPoints": ["web"], "rule": rule, "priority": 1000, "service": CHALLENGES}}
    return {"tls": {"options": {"default": tls}}, "http": http}


def traefik_service(name: str, addresses: Iterable[Any]) -> Row:
    """The addresses of one app: all that a switch of its colour replaces."""
    servers = [{"url": f"http://{address}"} for address in addresses]
    balancer = {"servers": servers, "serversTransport": name, "passHostHeader": True}
    return {"http": {"services": {name: {"loadBalancer": balancer}}}}


def traefik_file_servers(sites: Iterable[Site]) -> list[Row]:
    """What the file server serves under which names: sites of files, and each path at which such a site is."""
    rows: list[Row] = []
    for site in sites:
        if not site.get("static"):
            continue
        if names := whole_domains(site):
            rows.append({"names": names, "static": site["static"], "base": ""})
        for number, mount in enumerate(mounts(site)):
            names = [f"{site['name']}.{number}.{FILES}"]
            rows.append({"names": names, "static": site["static"], "base": "" if mount.strip else mount.path})
    return rows


def traefik_users(site: Site) -> Row:
    """Who knows the password of a site; a file of its own, which is never shown."""
    # What the application gets is the proxy's own business.
    auth = {"users": users(site), "removeHeader": True, "realm": "Restricted"}
    return {"http": {"middlewares": {f"{identifier(site['name'])}:users": {"basicAuth": auth}}}}


def traefik_certificates(sites: Iterable[Site], settings: Settings) -> list[Row]:
    """The certificates on the droplet's disk that Traefik shall show; not those that it gets by itself."""
    rows = []
    for site in sites:
        name = identifier(site["name"])
        names = [str(domain) for domain in (*whole_domains(site), *(site.get("redirect_domains") or []))]
        if not names or has_own_acme(site, settings):
            continue
        rows.append(
            {
                "name": name,
                "certificate": str(site.get("certificate") or f"{TLS}/{name}/fullchain.pem"),
                "key": str(site.get("certificate_key") or f"{TLS}/{name}/privkey.pem"),
                "names": names,
                # Shown to whoever sends no name: it connects to the bare address.
                "default": any(is_address(domain) for domain in names),
            }
        )
    return rows


def traefik_own(sites: Iterable[Site], settings: Settings) -> list[Row]:
    """The sites whose certificates Traefik gets by itself, for the module traefik_certificates."""
    rows = []
    for site in sites:
        names = [str(name) for name in (*whole_domains(site), *(site.get("redirect_domains") or []))]
        if names and has_own_acme(site, settings):
            rows.append({"name": site["name"], "domains": names})
    return rows


def traefik_self_signed(sites: Iterable[Site], settings: Settings) -> list[Row]:
    """The certificates that must exist before there is an authority's, for the module web_server."""
    return [
        {"certificate": row["certificate"], "key": row["key"], "names": row["names"]}
        for row in traefik_certificates(sites, settings)
    ]


def to_text(value: Any) -> str:
    return "# Written by Shipshape; local changes are lost.\n" + yaml.safe_dump(
        json.loads(json.dumps(value)), sort_keys=False, width=160
    )


def _services(site: Site) -> dict[str, Row]:
    """An app's addresses by the name of their file: one, or one for each colour."""
    name, proxy = identifier(site["name"]), site["proxy"]
    if green := proxy.get("green"):
        colours = {"blue": proxy["upstreams"], "green": green["upstreams"]}
        return {f"live-{name}.{colour}.yml": traefik_service(name, colours[colour]) for colour in colours}
    return {f"live-{name}.yml": traefik_service(name, proxy["upstreams"])}


def traefik_files(sites: Iterable[Site], settings: Settings) -> list[Row]:
    """The declared files as entries for the module files."""
    sites = list(sites)
    texts = {"base.yml": to_text(traefik_base(sites, settings))}
    for site in sites:
        texts[f"site-{site['name']}.yml"] = to_text(traefik_site(site, settings, sites))
        if site.get("proxy"):
            texts.update((name, to_text(service)) for name, service in _services(site).items())
    secrets = {f"users-{site['name']}.yml": to_text(traefik_users(site)) for site in sites if auth_paths(site)}
    rows = [
        {key: row[key] for key in ("name", "certificate", "key", "default")}
        for row in traefik_certificates(sites, settings)
    ]
    texts["certificates.json"] = json.dumps(rows, indent=1) + "\n"
    entries: list[Row] = [
        {"path": f"{DECLARED}/{name}", "content": text, "mode": "0640", "reload": SERVICE}
        for name, text in texts.items()
    ]
    entries += [
        {"path": f"{DECLARED}/{name}", "content": text, "mode": "0640", "reload": SERVICE, "secret": True}
        for name, text in secrets.items()
    ]
    if sites:
        pages = {"unavailable": UNAVAILABLE} | {
            f"maintenance-{site['name']}": text for site in sites if (text := maintenance_text(site))
        }
        entries.append({"path": PAGES_DIRECTORY, "state": "directory"})
        entries += [{"path": f"{PAGES_DIRECTORY}/{name}.html", "content": page(text)} for name, text in pages.items()]
    return entries


class FilterModule:
    """The filters of this file."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "traefik_acme_storage": acme_storage,
            "traefik_file_servers": traefik_file_servers,
            "traefik_files": traefik_files,
            "traefik_own": traefik_own,
            "traefik_self_signed": traefik_self_signed,
            "traefik_service": traefik_service,
            "traefik_static": lambda settings: to_text(traefik_static(settings)),
        }
