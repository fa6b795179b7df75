"""What the worker does, and what beat asks of it: each tick is counted by both."""

from __future__ import annotations

import os
import time
from typing import Any

import redis
from celery import Celery
from celery.signals import before_task_publish

URL = os.environ.get("REDIS_URL", "redis://127.0.0.1:6379/0")
EVERY = float(os.environ.get("REFRESH_SECONDS", "2"))
store = redis.Redis.from_url(URL, decode_responses=True)
celery = Celery("superset", broker=URL, backend=URL)
celery.conf.update(
    beat_schedule={"refresh": {"task": "work.refresh", "schedule": EVERY}},
    # What a worker that is killed was at goes to the next one.
    task_acks_late=True,
    worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True,
)


@celery.task
def query(number: int) -> int:
    """An asynchronous query that takes a moment."""
    time.sleep(0.5)
    return number * number


@celery.task
def refresh() -> None:
    """What beat has asked for."""
    store.incr("refreshed")


@before_task_publish.connect(sender="work.refresh")
def asked(**_: Any) -> None:
    """Runs in beat: when it was that it asked."""
    store.rpush("asked", f"{time.time():.3f}")
