"""Bearer tokens (JWT, HS256), which everything that writes asks for.

`python -m app.tokens NAME` prints one.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import sys
import time
from typing import Optional

from fastapi import Header, HTTPException

from .settings import settings


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _sign(text: str) -> str:
    return _encode(hmac.new(settings.token_secret.encode(), text.encode(), hashlib.sha256).digest())


def issue(subject: str) -> str:
    header = _encode(json.dumps({"alg": "HS256", "typ": "JWT"}).encode())
    claims = {"sub": subject, "exp": int(time.time()) + 60 * settings.token_minutes}
    text = header + "." + _encode(json.dumps(claims).encode())
    return text + "." + _sign(text)


def subject(token: str) -> Optional[str]:
    """Whose token it is; None when it is not ours, was changed or has ended."""
    text, _, signature = token.rpartition(".")
    if not settings.token_secret or not hmac.compare_digest(signature, _sign(text)):
        return None
    try:
        header, claims = (json.loads(_decode(part)) for part in text.split("."))
    except ValueError:
        return None
    if header.get("alg") != "HS256" or claims.get("exp", 0) < time.time():
        return None
    return str(claims.get("sub", ""))


def writer(authorization: str = Header(default="")) -> str:
    """Who writes; for requests that need a token."""
    scheme, _, token = authorization.partition(" ")
    found = subject(token) if scheme.lower() == "bearer" else None
    if not found:
        raise HTTPException(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"})
    return found


if __name__ == "__main__":
    print(issue(sys.argv[1]))
