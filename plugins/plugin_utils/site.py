"""What a site means, whichever proxy serves it."""

from __future__ import annotations

import functools
import hashlib
import html
import os
import re
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ansible.errors import AnsibleFilterError

Site = Mapping[str, Any]

#: Of two paths that match, the one with the higher priority is taken, then the longer one. The site itself has 1.
PRIORITY = 10
CORS_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
CORS_HEADERS = ("Authorization", "Content-Type")
#: How many seconds each way to say a rate has.
PERIODS = {"per_second": 1, "per_minute": 60, "per_hour": 3600}
#: Seconds after which to come again while a site is closed for maintenance.
RETRY_AFTER = 120
#: Each request is checked anew, by a proxy that does nothing else meanwhile: 2^6 rounds are some 5 ms. A password from
#: a vault, which the validation wants long, needs no more of them.
ROUNDS = 6
LONGEST_PASSWORD = 72


@dataclass(frozen=True)
class Limit:
    """How often one address may ask below a path (empty: the whole site), and how often at once beyond that."""

    path: str
    number: int
    seconds: int
    burst: int


def is_of_the_proxy(name: str) -> bool:
    """Whether a header of a request is one that the proxy itself sets, so that nobody else may."""
    return bool(
        re.fullmatch(
            "host|connection|upgrade|forwarded|proxy|te|trailer|transfer-encoding|content-length|expect"
            "|keep-alive|x-real-ip|x-request-id|x-forwarded-.*",
            name.lower(),
        )
    )


def plain_path(path: Any, where: str) -> str:
    """A path below / that both proxies can write; the slash at its end says nothing."""
    text = str(path)
    if not re.fullmatch(r"(?:/[A-Za-z0-9._~-]+)+/?", text):
        raise AnsibleFilterError(f"{where} '{text}' must be a path below /, such as /api")
    return text.rstrip("/")


def covers(above: str, path: str) -> bool:
    """Whether a path is another one, or below it; the empty one is above all."""
    return not above or path == above or path.startswith(above + "/")


def split_domain(entry: Any) -> tuple[str, str]:
    """The name and the path of an entry of `domains`; the empty path is the whole domain."""
    name, slash, path = str(entry).partition("/")
    return name, slash + path


def whole_domains(site: Site) -> list[str]:
    """The domains that a site has for itself, but for the paths that other sites have on them."""
    return [name for name, path in map(split_domain, site.get("domains") or []) if not path]


@dataclass(frozen=True)
class Mount:
    """A path on a domain at which a site is."""

    domain: str
    path: str
    strip: bool
    priority: int

    def within(self, path: str) -> str:
        """A path of the application as a visitor writes it. One that is not told of its prefix knows its own paths
        alone; another may be declared with it or without."""
        return path if not self.strip and path and covers(self.path, path) else self.path + path


def mounts(site: Site) -> list[Mount]:
    """The paths at which a site is, on domains that are another's or nobody's."""
    strip, priority = bool(site.get("strip")), int(site.get("priority") or PRIORITY)
    return [
        Mount(name, plain_path(path, f"site '{site['name']}': the path of {name}"), strip, priority)
        for name, path in map(split_domain, site.get("domains") or [])
        if path
    ]


def mounted(sites: Iterable[Site]) -> dict[str, list[tuple[Mount, Site]]]:
    """By domain in small letters, what is at its paths: the higher priority first, then the longer path."""
    found: dict[str, list[tuple[Mount, Site]]] = {}
    for site in sites:
        for mount in mounts(site):
            found.setdefault(mount.domain.lower(), []).append((mount, site))
    return {
        name: sorted(rows, key=lambda row: (-row[0].priority, -len(row[0].path), row[0].path))
        for name, rows in found.items()
    }


def kind_of(site: Site) -> str:
    """What a site is: static, proxy or route; nothing for one that only lends its domains' paths to others."""
    kinds = [kind for kind in ("static", "proxy", "route") if site.get(kind)]
    if len(kinds) > 1 or (not kinds and not site.get("empty")):
        raise AnsibleFilterError(
            f"site '{site['name']}' must have one of static, proxy and route; found {' and '.join(kinds) or 'neither'}"
        )
    if not site.get("domains"):
        raise AnsibleFilterError(
            f"site '{site['name']}' has no domains: name at least one, or the droplet's address with self_signed: true"
        )
    return kinds[0] if kinds else ""


def owners(sites: Iterable[Site]) -> dict[str, Site]:
    """By domain in small letters, the site that has it, with the certificate; each path needs one."""
    sites = list(sites)
    found = {name.lower(): site for site in sites for name in whole_domains(site)}
    for site in sites:
        if site.get("redirect_domains") and not whole_domains(site):
            raise AnsibleFilterError(f"site '{site['name']}' has redirect_domains, but no domain for them to lead to")
    for name, rows in mounted(sites).items():
        if name not in found:
            mount, site = rows[0]
            raise AnsibleFilterError(
                f"site '{site['name']}' is at {mount.domain}{mount.path}, but no site has {mount.domain} itself; list "
                f"one, or, for a domain with nothing else on it, {{name: …, domains: [{mount.domain}], empty: true}}"
            )
    return found


def limits(site: Site) -> list[Limit]:
    """All limits of a site."""
    said = [("", site.get("rate_limit") or {})]
    for path, rates in (site.get("rate_limits") or {}).items():
        said.append((plain_path(path, f"site '{site['name']}': the path of the limit"), rates))
    return [
        Limit(path, int(rates[key]), seconds, int(rates.get("burst") or 0))
        for path, rates in said
        for key, seconds in PERIODS.items()
        if rates.get(key)
    ]


def auth_paths(site: Site) -> list[str]:
    """Where a password is asked for; the empty path is the whole site, and no path at all nowhere."""
    auth = site.get("basic_auth")
    if not auth:
        return []
    paths = auth.get("paths") or []
    return [plain_path(path, f"site '{site['name']}': the path of basic_auth") for path in paths] or [""]


def users(site: Site) -> list[str]:
    """Lines of a password file, each a name and the hash of its password, the same in each run."""
    lines = []
    for name, password in site["basic_auth"]["users"].items():
        if not re.fullmatch(r"[A-Za-z0-9._@-]+", str(name)):
            raise AnsibleFilterError(
                f"site '{site['name']}': basic_auth has a user whose name a password file cannot hold"
            )
        if len(str(password).encode()) > LONGEST_PASSWORD:
            raise AnsibleFilterError(
                f"site '{site['name']}': basic_auth: the password of {name} has more than {LONGEST_PASSWORD} bytes; "
                "bcrypt would not look at the rest"
            )
        hashed = password_hash(f"{site['domains'][0]} {name}", str(password))
        lines.append(f"{name}:{hashed}")
    return lines


@functools.lru_cache(maxsize=256)
def password_hash(whose: str, password: str) -> str:
    """A bcrypt hash with a salt that says whose it is: it stays the same between runs, and is nobody else's.

    The salt does not follow from the password, as it stands beside the hash for all who can read that.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            from passlib.hash import bcrypt
            from passlib.utils.binary import bcrypt64
        except ImportError as error:
            raise AnsibleFilterError(
                "basic_auth needs the Python package passlib where Ansible runs: `pip install passlib`"
            ) from error
        salt = bcrypt64.encode_bytes(hashlib.sha256(f"shipshape {whose}".encode()).digest())[:21].decode()
        # The last of its 22 characters has but two bits in use: one of four.
        salt += "u"
        os.environ.setdefault("PASSLIB_BUILTIN_BCRYPT", "enabled")
        # Not the package `bcrypt`, whose newer releases passlib does not know.
        bcrypt.set_backend(next(backend for backend in ("os_crypt", "builtin") if bcrypt.has_backend(backend)))
        return str(bcrypt.using(rounds=ROUNDS, salt=salt, ident="2b").hash(password))


def maintenance_text(site: Site) -> str:
    """What a site that is closed says; empty for one that is open."""
    said = site.get("maintenance")
    if not said:
        return ""
    message = said.get("message") if isinstance(said, Mapping) else ""
    return str(message or "We are at work on this site. Please come again in a few minutes.")


UNAVAILABLE = "The site does not answer at the moment. Please try again in a minute."


def page(text: str) -> str:
    """A page that says one thing, and needs nothing from anywhere."""
    words = "<br>\n".join(html.escape(line) for line in text.strip().splitlines())
    return (
        '<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width">\n'
        '<meta name="robots" content="noindex">\n<title>Not available</title>\n'
        f'<body style="font:1.1em/1.6 sans-serif;max-width:32em;margin:20vh auto 0;padding:0 1em">\n<p>{words}</p>\n'
    )
