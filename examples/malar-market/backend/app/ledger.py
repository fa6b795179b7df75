"""Farmers, what they bring day by day, and what they were paid."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import Annotated, List, Optional
from uuid import UUID

from fastapi import APIRouter, Depends, HTTPException
from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import func, select
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import Session

from .database import DailyEntry, Farmer, Settlement, session
from .tokens import writer

router = APIRouter(prefix="/api/v1")
Database = Annotated[Session, Depends(session)]
Writes = [Depends(writer)]


class NewFarmer(BaseModel):
    name: str = Field(min_length=1, max_length=100)
    phone: str = Field(pattern=r"^\+?[0-9]{6,15}$")
    village: str = Field(default="", max_length=100)


class FarmerOut(NewFarmer):
    model_config = ConfigDict(from_attributes=True)
    id: UUID


class NewEntry(BaseModel):
    farmer_id: UUID
    entry_date: date
    flower: str = Field(min_length=1, max_length=50)
    weight_kg: Decimal = Field(gt=0, max_digits=8, decimal_places=3)
    rate_per_kg: Decimal = Field(gt=0, max_digits=8, decimal_places=2)


class EntryOut(NewEntry):
    model_config = ConfigDict(from_attributes=True)
    id: UUID
    amount: Decimal


class NewSettlement(BaseModel):
    farmer_id: UUID
    settled_on: date
    amount: Decimal = Field(gt=0, max_digits=12, decimal_places=2)


class Balance(BaseModel):
    farmer_id: UUID
    brought: Decimal
    settled: Decimal
    owed: Decimal


def _farmer(database: Session, farmer_id: UUID) -> Farmer:
    farmer = database.get(Farmer, farmer_id)
    if farmer is None:
        raise HTTPException(404, "no such farmer")
    return farmer


@router.get("/farmers")
def farmers(database: Database) -> List[FarmerOut]:
    return [FarmerOut.model_validate(row) for row in database.scalars(select(Farmer).order_by(Farmer.name))]


@router.post("/farmers", status_code=201, dependencies=Writes)
def add_farmer(new: NewFarmer, database: Database) -> FarmerOut:
    farmer = Farmer(**new.model_dump())
    database.add(farmer)
    try:
        database.flush()
    except IntegrityError as error:
        raise HTTPException(409, "a farmer with this phone number is there already") from error
    return FarmerOut.model_validate(farmer)


@router.get("/farmers/{farmer_id}/balance")
def balance(farmer_id: UUID, database: Database) -> Balance:
    _farmer(database, farmer_id)
    brought = database.scalar(select(func.coalesce(func.sum(DailyEntry.amount), 0)).filter_by(farmer_id=farmer_id))
    settled = database.scalar(select(func.coalesce(func.sum(Settlement.amount), 0)).filter_by(farmer_id=farmer_id))
    return Balance(farmer_id=farmer_id, brought=brought, settled=settled, owed=brought - settled)


@router.get("/daily-entries")
def entries(database: Database, day: Optional[date] = None) -> List[EntryOut]:
    wanted = select(DailyEntry).order_by(DailyEntry.entry_date, DailyEntry.flower, DailyEntry.id)
    if day is not None:
        wanted = wanted.where(DailyEntry.entry_date == day)
    return [EntryOut.model_validate(row) for row in database.scalars(wanted.limit(1000))]


@router.post("/daily-entries", status_code=201, dependencies=Writes)
def add_entry(new: NewEntry, database: Database) -> EntryOut:
    _farmer(database, new.farmer_id)
    entry = DailyEntry(**new.model_dump())
    database.add(entry)
    database.flush()
    database.refresh(entry)
    return EntryOut.model_validate(entry)


@router.post("/settlements", status_code=201, dependencies=Writes)
def settle(new: NewSettlement, database: Database) -> Balance:
    _farmer(database, new.farmer_id)
    database.add(Settlement(**new.model_dump()))
    database.flush()
    return balance(new.farmer_id, database)
