"""Who is logged in: a token names a session, and Redis has the session until it ends."""

from __future__ import annotations

import os
import secrets
from datetime import datetime, timedelta, timezone

import jwt
import redis
from fastapi import Header, HTTPException

LIFETIME = timedelta(minutes=int(os.environ.get("ACCESS_TOKEN_EXPIRE_MINUTES", "60")))
_store = redis.Redis.from_url(os.environ["REDIS_SESSIONS_URL"], decode_responses=True, socket_timeout=2)
_secret = os.environ["JWT_SECRET_KEY"]


def ping() -> bool:
    return bool(_store.ping())


def begin(email: str) -> str:
    """A new session, as the token that stands for it."""
    name = secrets.token_hex(16)
    _store.setex(f"session:{name}", LIFETIME, email)
    return jwt.encode({"sub": name, "exp": datetime.now(timezone.utc) + LIFETIME}, _secret, algorithm="HS256")


def _name(authorization: str) -> str:
    try:
        return str(jwt.decode(authorization.partition(" ")[2], _secret, algorithms=["HS256"])["sub"])
    except jwt.PyJWTError as error:
        raise HTTPException(401, "a valid bearer token is needed", {"WWW-Authenticate": "Bearer"}) from error


def user(authorization: str = Header(default="")) -> str:
    """Whose session it is; for requests that need one."""
    email = _store.get(f"session:{_name(authorization)}")
    if not email:
        raise HTTPException(401, "the session has ended", {"WWW-Authenticate": "Bearer"})
    return str(email)


def end(authorization: str = Header(default="")) -> None:
    _store.delete(f"session:{_name(authorization)}")
