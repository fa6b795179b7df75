"""All that the environment says. A missing value has a default only where one is safe."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import List


def _origins() -> List[str]:
    return [origin.strip() for origin in os.environ.get("ALLOWED_ORIGINS", "").split(",") if origin.strip()]


@dataclass(frozen=True)
class Settings:
    name: str = os.environ.get("APP_NAME", "Malar Market Digital Ledger")
    environment: str = os.environ.get("ENVIRONMENT", "development")
    database_url: str = os.environ.get("DATABASE_URL", "")
    redis_url: str = os.environ.get("REDIS_URL", "")
    pool_size: int = int(os.environ.get("DATABASE_POOL_SIZE", "5"))
    max_overflow: int = int(os.environ.get("DATABASE_MAX_OVERFLOW", "5"))
    token_secret: str = os.environ.get("JWT_SECRET_KEY") or os.environ.get("SECRET_KEY", "")
    token_minutes: int = int(os.environ.get("ACCESS_TOKEN_EXPIRE_MINUTES", "15"))
    log_level: str = os.environ.get("LOG_LEVEL", "INFO").upper()
    allowed_origins: List[str] = field(default_factory=_origins)


settings = Settings()
