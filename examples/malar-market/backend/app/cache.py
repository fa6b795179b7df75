"""What outlives a restart without belonging into the ledger: today's rates, in Redis when there is one."""

from __future__ import annotations

import logging
from typing import Dict

import redis

from .settings import settings

log = logging.getLogger("malar")
KEY = "malar:market-rates"

_client = (
    redis.Redis.from_url(settings.redis_url, decode_responses=True, socket_timeout=2, socket_connect_timeout=2)
    if settings.redis_url
    else None
)


def state() -> str:
    """`none` without Redis, else whether it answers. The app serves without it."""
    if _client is None:
        return "none"
    try:
        _client.ping()
    except redis.RedisError:
        return "unreachable"
    return "ok"


def load_rates() -> Dict[str, float]:
    if _client is None:
        return {}
    try:
        return {flower: float(rate) for flower, rate in _client.hgetall(KEY).items()}
    except redis.RedisError as error:
        log.warning("rates are not read from the cache: %s", type(error).__name__)
        return {}


def save_rate(flower: str, rate: float) -> None:
    if _client is None:
        return
    try:
        _client.hset(KEY, flower, rate)
    except redis.RedisError as error:
        log.warning("a rate is not kept in the cache: %s", type(error).__name__)
