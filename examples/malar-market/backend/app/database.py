"""The connection to PostgreSQL and the tables."""

from __future__ import annotations

from datetime import date, datetime
from decimal import Decimal
from typing import Iterator
from uuid import UUID

from sqlalchemy import Computed, DateTime, ForeignKey, Numeric, String, create_engine, func, text
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from .settings import settings


def driver_url(url: str) -> str:
    """The URL as it is usually written, with the driver this app uses."""
    for prefix in ("postgresql://", "postgres://"):
        if url.startswith(prefix):
            return "postgresql+psycopg://" + url[len(prefix) :]
    return url


# A connection that a restarted server has closed is noticed and replaced before it is used.
engine = create_engine(
    driver_url(settings.database_url or "postgresql:///malar"),
    pool_size=settings.pool_size,
    max_overflow=settings.max_overflow,
    pool_pre_ping=True,
    # By way of a pooler in transaction mode, what one connection has prepared the next one does not know.
    connect_args={"connect_timeout": 3, "prepare_threshold": None},
)


def session() -> Iterator[Session]:
    """One request's transaction."""
    with Session(engine) as opened, opened.begin():
        yield opened


class Base(DeclarativeBase):
    pass


class Farmer(Base):
    __tablename__ = "farmers"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("uuid_generate_v4()"))
    name: Mapped[str] = mapped_column(String(100))
    phone: Mapped[str] = mapped_column(String(20), unique=True)
    village: Mapped[str] = mapped_column(String(100), server_default="")
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True), server_default=func.now())


class DailyEntry(Base):
    __tablename__ = "daily_entries"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    farmer_id: Mapped[UUID] = mapped_column(ForeignKey("farmers.id"), index=True)
    entry_date: Mapped[date] = mapped_column(index=True)
    flower: Mapped[str] = mapped_column(String(50))
    weight_kg: Mapped[Decimal] = mapped_column(Numeric(8, 3))
    rate_per_kg: Mapped[Decimal] = mapped_column(Numeric(8, 2))
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2), Computed("round(weight_kg * rate_per_kg, 2)"))


class Settlement(Base):
    __tablename__ = "settlements"

    id: Mapped[UUID] = mapped_column(primary_key=True, server_default=text("gen_random_uuid()"))
    farmer_id: Mapped[UUID] = mapped_column(ForeignKey("farmers.id"), index=True)
    settled_on: Mapped[date]
    amount: Mapped[Decimal] = mapped_column(Numeric(12, 2))
