"""The way to PostgreSQL, which in production leads through a pooler."""

from __future__ import annotations

import os
from typing import Any, List, Mapping, Optional

from sqlalchemy import create_engine, text


def driver_url(url: str) -> str:
    """The URL as it is usually written, with the driver this app uses."""
    return url.replace("postgresql://", "postgresql+psycopg://", 1)


engine = create_engine(
    driver_url(os.environ.get("DATABASE_URL", "postgresql:///lodge")),
    pool_pre_ping=True,
    # By way of a pooler in transaction mode, what one connection has prepared the next one does not know.
    connect_args={"connect_timeout": 3, "prepare_threshold": None},
)


def rows(query: str, values: Optional[Mapping[str, Any]] = None) -> List[Any]:
    """What a statement answers, in a transaction of its own."""
    with engine.begin() as connection:
        result = connection.execute(text(query), values or {})
        return list(result) if result.returns_rows else []
