"""Say something to a webhook in Slack's form, which others understand too.

Roles put this file beside their own programs on a droplet: it needs nothing but Python.
"""

from __future__ import annotations

import json
import urllib.request


class NotTold(Exception):
    """The webhook did not take it. The text is without the address, which is a secret."""


def tell(url: str, text: str) -> None:
    body = json.dumps({"text": text}).encode()
    try:
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=15):
            pass
    except (OSError, ValueError) as error:
        raise NotTold(str(error).replace(url, "(secret)")) from None


def points(headline: str, lines: list[str]) -> str:
    """A headline with what belongs to it below."""
    return headline + "\n" + "\n".join(f"• {line}" for line in lines)
