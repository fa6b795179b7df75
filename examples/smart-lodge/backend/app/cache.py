"""Results that are worth keeping for a minute."""

from __future__ import annotations

import json
import os
from typing import Any, Callable, Dict

import redis

_store = redis.Redis.from_url(os.environ["REDIS_CACHE_URL"], decode_responses=True, socket_timeout=2)


def ping() -> bool:
    return bool(_store.ping())


def kept(name: str, make: Callable[[], Dict[str, Any]]) -> Dict[str, Any]:
    """The result, made unless it is there, and whether it was."""
    found = _store.get(name)
    if found:
        return {**json.loads(found), "cached": True}
    made = make()
    _store.setex(name, 60, json.dumps(made))
    return {**made, "cached": False}
