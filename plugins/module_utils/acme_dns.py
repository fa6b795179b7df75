"""What a DNS provider's API says of its zones, asked before a certificate authority looks for a proof in them."""

from __future__ import annotations

import json
import re
import urllib.error
import urllib.request
from typing import Any, List, Optional

DIGITALOCEAN = "https://api.digitalocean.com"
TIMEOUT = 20
#: The token as a user of the whole site writes it, and of a role alone.
TOKEN = "acme_dns.token ({role}.token for the role alone)"
SCOPES = "domain:read, domain:create, domain:update and domain:delete"


class Unusable(Exception):
    """The API cannot be used; the message says why, and what to do."""


class Unreachable(Unusable):
    """It did not answer, which says nothing about what was declared."""


def zones(token: str, role: str, api: str = DIGITALOCEAN) -> List[str]:
    """The zones that the account of a token has at DigitalOcean."""
    found: List[str] = []
    url: Optional[str] = api + "/v2/domains?per_page=200"
    # Page after page, and never to another host: the token goes along.
    while url and url.startswith(api + "/"):
        page = _page(url, token, TOKEN.format(role=role))
        found += [str(row["name"]).lower() for row in page.get("domains") or []]
        url = ((page.get("links") or {}).get("pages") or {}).get("next")
    return found


def _page(url: str, token: str, name: str) -> Any:
    request = urllib.request.Request(
        url, headers={"Authorization": "Bearer " + token, "Accept": "application/json", "User-Agent": "shipshape"}
    )
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return json.loads(answer.read().decode("utf-8"))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise Unusable(
                f"DigitalOcean's API refuses the token in {name} (401): it was mistyped, has expired or was revoked. "
                f"Make one with the scopes {SCOPES}, put it into the vault and run again."
            ) from error
        if error.code in (403, 404):
            raise Unusable(
                f"DigitalOcean's API does not let the token in {name} see the zones ({error.code}). "
                f"It needs the scopes {SCOPES}: make such a one, put it into the vault and run again."
            ) from error
        raise Unreachable(f"DigitalOcean's API answers {error.code}. Run again later.") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise Unreachable(
            f"DigitalOcean's API cannot be reached from this droplet ({reason}). Run again later."
        ) from error


def obstacle(domain: str, found: List[str], role: str) -> Optional[str]:
    """Why no record can be made for a domain; None when one of the zones is its own."""
    name = domain[2:] if domain.startswith("*.") else domain
    if any(name == zone or name.endswith("." + zone) for zone in found):
        return None
    have = ", ".join(found) or "none"
    return (
        f"DigitalOcean has no zone for {domain}; the account of {TOKEN.format(role=role)} has: {have}. "
        "Add the domain there (Networking, Domains), lead its name servers to DigitalOcean's, and run again."
    )


def token_of(path: str) -> str:
    """The token in a credentials file of certbot's plugin; empty without one."""
    try:
        with open(path, encoding="utf-8") as handle:
            found = re.search(r"^\s*dns_digitalocean_token\s*=\s*(\S+)\s*$", handle.read(), re.MULTILINE)
    except FileNotFoundError:
        return ""
    return found.group(1) if found else ""
