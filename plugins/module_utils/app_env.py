"""An app's environment: as the file systemd reads, and what of it must never be shown."""

from __future__ import annotations

import base64
import json
import re
from typing import Any, Mapping
from urllib.parse import unquote, urlsplit

from ansible_collections.shipshape.droplet.plugins.module_utils.app_types import DIRECT_SCRIPTS

HIDDEN = "********"

_SECRET_NAME = re.compile(
    r"SECRET|PASS|TOKEN|KEY|CREDENTIAL|PRIVATE|DSN|AUTH|SALT|_SID$|COOKIE|SIGNATURE|LICEN[CS]E", re.IGNORECASE
)
_ESCAPED = re.compile(r'(["\\$`])')
_ASSIGNMENT = re.compile(r'^([A-Za-z_][A-Za-z0-9_]*)="((?:[^"\\]|\\.)*)"$', re.MULTILINE | re.DOTALL)


def to_file(environment: Mapping[str, str]) -> str:
    """The text of an EnvironmentFile. Within double quotes systemd and a shell unescape just these four characters."""
    lines = ['{}="{}"'.format(name, _ESCAPED.sub(r"\\\1", value)) for name, value in sorted(environment.items())]
    return "\n".join(
        [
            "# One release's environment, written by Shipshape. It is never changed: a change is a new release.",
            *lines,
            "",
        ]
    )


def from_file(text: str) -> dict[str, str]:
    """The environment that `to_file` wrote."""
    return {name: re.sub(r"\\(.)", r"\1", value, flags=re.DOTALL) for name, value in _ASSIGNMENT.findall(text)}


def _password(value: str) -> list[str]:
    """The password in a URL, as it is written there and as it is meant."""
    try:
        parts = urlsplit(value)
        raw = (parts.netloc.rpartition("@")[0]).partition(":")[2]
    except ValueError:
        return []
    return [raw, unquote(raw)] if raw else []


def _looks_random(value: str) -> bool:
    return len(value) >= 12 and " " not in value and any(c.isdigit() for c in value) and any(c.isalpha() for c in value)


def secrets(environment: Mapping[str, str]) -> list[str]:
    """The values that may be secret, longest first; rather one too many than one too few."""
    found = set()
    for name, value in environment.items():
        passwords = _password(value)
        found.update(passwords)
        if passwords or _SECRET_NAME.search(name) or _looks_random(value):
            # Also as a log writes it that shows the value quoted.
            found.update(
                (value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1], repr(value)[1:-1])
            )
            found.update(line.strip() for line in value.splitlines())
    return sorted((value for value in found if len(value) >= 4), key=len, reverse=True)


def scrub(text: str, environment: Mapping[str, str]) -> str:
    """The text without anything secret: an app's own log may well print its settings."""
    for value in secrets(environment):
        text = text.replace(value, HIDDEN)
    return text


def past_the_pooler(script: str, environment: Mapping[str, str]) -> str:
    """The DATABASE_URL of a script that needs a session of its own; nothing where it is that of the app."""
    return environment.get("DIRECT_DATABASE_URL", "") if script in DIRECT_SCRIPTS else ""


def unseal(sealed: str) -> dict[str, Any]:
    """What a filter has sealed: a module takes it as one argument that is never logged."""
    found: dict[str, Any] = json.loads(base64.b64decode(sealed or "e30="))
    return found


def without_password(url: str) -> str:
    """A source's URL as it may be shown."""
    return re.sub(r"(?<=://)[^/@]*@", "", url)
