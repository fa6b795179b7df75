"""The API: uvicorn app.main:app"""

from __future__ import annotations

import logging
from datetime import datetime, timezone
from typing import Dict

from fastapi import FastAPI, Response
from fastapi.middleware.cors import CORSMiddleware
from sqlalchemy import text
from sqlalchemy.exc import SQLAlchemyError

from . import __version__, cache, ledger, rates
from .database import engine
from .settings import settings

logging.basicConfig(level=settings.log_level)
log = logging.getLogger("malar")

app = FastAPI(title=settings.name, version=__version__)
app.add_middleware(
    CORSMiddleware,
    allow_origins=settings.allowed_origins,
    allow_methods=["*"],
    allow_headers=["Authorization", "Content-Type"],
)
app.include_router(ledger.router)
app.include_router(rates.router)


@app.get("/health")
def health(response: Response) -> Dict[str, str]:
    """Healthy is who reaches the database and finds its tables there. Without the cache it goes on."""
    database = "ok"
    try:
        with engine.connect() as connection:
            connection.execute(text("SELECT 1 FROM farmers LIMIT 1"))
    except SQLAlchemyError as error:
        log.error("the database does not answer: %s", type(error.__cause__ or error).__name__)
        database, response.status_code = "unreachable", 503
    return {
        "status": "healthy" if database == "ok" else "unhealthy",
        "timestamp": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "version": __version__,
        "environment": settings.environment,
        "database": database,
        "cache": cache.state(),
    }
